// Every example of the "Upsert data" guide that is given in JavaScript, and its batches, which the page shows in Python.
import { deepStrictEqual, ok } from 'node:assert';
import { until, waitForCounts } from './walk.mjs';

export const INDEX = 'pinecone-index';
export const BATCHED = 'example-index';
const DIMENSION = 128;
const COUNT = 10_000;
const EIGHT = Object.fromEntries([...'ABCDEFGH'].map((name, at) => [name, Array(8).fill((at + 1) / 10)]));

export async function makeIndexes(pc, spec) {
  await pc.createIndex({ name: INDEX, dimension: 8, metric: 'euclidean', spec, waitUntilReady: true });
  await pc.createIndex({ name: BATCHED, dimension: DIMENSION, metric: 'cosine', spec, waitUntilReady: true });
}

export async function upsertRecordsIntoTheDefaultNamespace({ index, idiom }) {
  await idiom.upsert(index, [
    {
      "id": "A", 
      "values": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    },
    {
      "id": "B", 
      "values": [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    },
    {
      "id": "C", 
      "values": [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    },
    {
      "id": "D", 
      "values": [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    }
  ]);
  await waitForCounts(index, { __default__: 4 });
  const { records } = await idiom.fetch(index, ['A', 'B', 'C', 'D']);
  for (const name of 'ABCD') deepStrictEqual(records[name].values, EIGHT[name]);
}

export async function upsertRecordsIntoNonDefaultNamespaces({ index, idiom }) {
  await idiom.upsert(index.namespace("ns1"), [
    {
      "id": "A", 
      "values": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    },
    {
      "id": "B", 
      "values": [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    },
    {
      "id": "C", 
      "values": [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    },
    {
      "id": "D", 
      "values": [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    }
  ]);
  await idiom.upsert(index.namespace("ns2"), [
    {
      "id": "E", 
      "values": [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    },
    {
      "id": "F", 
      "values": [0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    },
    {
      "id": "G", 
      "values": [0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    },
    {
      "id": "H", 
      "values": [0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    }
  ]);
}

export async function checkDataFreshness({ index }) {
  const stats = await waitForCounts(index, { __default__: 4, ns1: 4, ns2: 4 });
  deepStrictEqual(stats.dimension, 8);
  deepStrictEqual(stats.totalRecordCount, 12);
  ok(stats.indexFullness >= 0 && stats.indexFullness <= 1);
  const found = await index.namespace('ns2').query({ vector: EIGHT.G, topK: 4 });
  deepStrictEqual(found.matches.map((match) => match.id).sort(), ['E', 'F', 'G', 'H']);
  deepStrictEqual(found.namespace, 'ns2');
}

export async function upsertRecordsWithMetadata({ index, idiom }) {
  const records = [
      {
        id: 'A',
        values: [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
        metadata: { genre: "comedy", year: 2020 },
      },
      {
        id: 'B',
        values: [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
        metadata: { genre: "documentary", year: 2019 },
      },
      {
        id: 'C',
        values: [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3],
        metadata: { genre: "comedy", year: 2019 },
      },
      {
        id: 'D',
        values: [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4],
        metadata: { genre: "drama" },
      }
  ]
  await idiom.upsert(index, records);
  const read = async () => (await idiom.fetch(index, ['D'])).records.D.metadata;
  await until(read, (shown) => shown?.genre === 'drama');
  const question = { vector: EIGHT.A, topK: 10, filter: { genre: { $eq: 'comedy' } }, includeMetadata: true };
  const { matches } = await index.query(question);
  const found = Object.fromEntries(matches.map((match) => [match.id, match.metadata]));
  deepStrictEqual(found, { A: { genre: 'comedy', year: 2020 }, C: { genre: 'comedy', year: 2019 } });
}

export async function upsertOverwritesTheEntireRecord({ index, idiom }) {
  await idiom.upsert(index, [{ id: 'A', values: EIGHT.B }]);
  const read = async () => (await idiom.fetch(index, ['A'])).records.A;
  const record = await until(read, (shown) => shown.metadata === undefined);
  deepStrictEqual(record.values, EIGHT.B);
}

export async function updateOnlyPartOfARecord({ index, idiom }) {
  await index.update({ id: 'A', metadata: { genre: 'drama' } });
  const read = async () => (await idiom.fetch(index, ['A'])).records.A;
  const record = await until(read, (shown) => shown.metadata?.genre === 'drama');
  deepStrictEqual(record.values, EIGHT.B);
}

export async function upsertRecordsWithSparseValues({ index, idiom }) {
  const sparseValues = { indices: [10, 16, 45], values: [0.5, 0.2, 0.25] };
  await idiom.upsert(index.namespace('sparse'), [{ id: 'S', values: EIGHT.A, sparseValues }]);
  await waitForCounts(index, { __default__: 4, ns1: 4, ns2: 4, sparse: 1 });
  const { records } = await idiom.fetch(index.namespace('sparse'), ['S']);
  deepStrictEqual(records.S.sparseValues, sparseValues);
  deepStrictEqual(records.S.values, EIGHT.A);
}

export async function prefixIdsWithTheirDocument({ index, idiom }) {
  const docs = index.namespace('docs');
  const parts = [1, 2, 3].map((part) => ({ id: `doc1#chunk${part}`, values: EIGHT.A }));
  await idiom.upsert(docs, [...parts, { id: 'doc2#chunk1', values: EIGHT.B }]);
  await waitForCounts(index, { __default__: 4, docs: 4, ns1: 4, ns2: 4, sparse: 1 });
  const page = await docs.listPaginated({ prefix: 'doc1#' });
  deepStrictEqual(page.vectors.map((item) => item.id), ['doc1#chunk1', 'doc1#chunk2', 'doc1#chunk3']);
}

function chunks(data, batchSize) {
  return Array.from({ length: Math.ceil(data.length / batchSize) }, (_, at) =>
    data.slice(at * batchSize, (at + 1) * batchSize));
}

function exampleData() {
  const values = () => Array.from({ length: DIMENSION }, () => Math.random());
  return Array.from({ length: COUNT }, (_, at) => ({ id: `id-${at}`, values: values() }));
}

export async function upsertRecordsInBatches({ pc, idiom }) {
  const index = idiom.index(pc, BATCHED);
  for (const chunk of chunks(exampleData(), 100)) await idiom.upsert(index, chunk);
  await waitForCounts(index, { __default__: COUNT });
}

export async function sendUpsertsInParallel({ pc, idiom }) {
  const index = idiom.index(pc, BATCHED);
  const data = exampleData();
  await Promise.all(chunks(data, 100).map((chunk) => idiom.upsert(index, chunk)));
  const { id, values } = data.at(-1);
  const wanted = values.map(Math.fround);
  const read = async () => (await idiom.fetch(index, [id])).records[id].values.map(Math.fround);
  await until(read, (shown) => shown.every((number, at) => number === wanted[at]));
  await waitForCounts(index, { __default__: COUNT });
  deepStrictEqual((await index.query({ vector: values, topK: 3 })).matches[0].id, id);
}

export const STEPS = [
  upsertRecordsIntoTheDefaultNamespace,
  upsertRecordsIntoNonDefaultNamespaces,
  checkDataFreshness,
  upsertRecordsWithMetadata,
  upsertOverwritesTheEntireRecord,
  updateOnlyPartOfARecord,
  upsertRecordsWithSparseValues,
  prefixIdsWithTheirDocument,
  upsertRecordsInBatches,
  sendUpsertsInParallel,
];
