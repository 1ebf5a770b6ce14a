// TypeScript client 7.2.0: API 2025-10, one object of options a call.
import { Pinecone } from '@pinecone-database/pinecone';
import * as control from './control.mjs';
import * as data from './data.mjs';
import * as guide from './guide.mjs';
import { API_KEY, URL_OF_SERVER, take } from './walk.mjs';

const idiom = {
  index: (pc, name) => pc.index(name),
  indexByHost: (pc, name, host) => pc.index({ name, host }),
  upsert: (index, records) => index.upsert({ records }),
  fetch: (index, ids) => index.fetch({ ids }),
  deleteOne: (index, id) => index.deleteOne({ id }),
  deleteMany: (index, ids) => index.deleteMany({ ids }),
  deleteManyByFilter: (index, filter) => index.deleteMany({ filter }),
  configure: (pc, name, changes) => pc.configureIndex({ name, ...changes }),
  shapeOf: ({ dimension, metric, spec }) => ({ dimension, metric, region: spec.serverless.region }),
};

const pc = new Pinecone({ apiKey: API_KEY, controllerHostUrl: URL_OF_SERVER });
const walk = { Pinecone, pc, idiom };
await guide.makeIndexes(pc, control.SPEC);
walk.index = idiom.index(pc, guide.INDEX);
await take(walk, [...guide.STEPS, ...control.CREATE, ...data.RECORDS, ...data.LATER, ...data.END, control.deleteIndexes]);
