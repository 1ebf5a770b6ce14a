// Steps on indexes: made, described, listed, changed, protected, deleted; and what is refused.
import { deepStrictEqual, ok } from 'node:assert';
import { API_KEY, URL_OF_SERVER, refused, until } from './walk.mjs';

export const NAME = 'records';
export const SPEC = { serverless: { cloud: 'aws', region: 'us-east-1' } };

export async function createAnIndex(walk) {
  const made = { name: NAME, dimension: 4, metric: 'cosine', spec: SPEC, tags: { team: 'a', old: 'x' } };
  await walk.pc.createIndex({ ...made, waitUntilReady: true });
  walk.index = walk.idiom.index(walk.pc, NAME);
}

export async function describeTheIndex({ pc, idiom }) {
  const described = await pc.describeIndex(NAME);
  deepStrictEqual(described.name, NAME);
  deepStrictEqual(described.status, { ready: true, state: 'Ready' });
  ok(described.host.startsWith(new URL(URL_OF_SERVER).protocol), described.host);
  deepStrictEqual(idiom.shapeOf(described), { dimension: 4, metric: 'cosine', region: 'us-east-1' });
}

export async function listIndexes({ pc }) {
  const { indexes } = await pc.listIndexes();
  ok(indexes.some((one) => one.name === NAME));
}

export async function reachAnIndexByItsHost({ pc, idiom }) {
  const { host } = await pc.describeIndex(NAME);
  deepStrictEqual((await idiom.indexByHost(pc, NAME, host).describeIndexStats()).dimension, 4);
}

export async function findTheServerByTheEnvironment({ Pinecone, idiom }) {
  deepStrictEqual(process.env.PINECONE_CONTROLLER_HOST, URL_OF_SERVER);
  deepStrictEqual(process.env.PINECONE_API_KEY, API_KEY);
  deepStrictEqual((await idiom.index(new Pinecone(), NAME).describeIndexStats()).dimension, 4);
}

export async function refuseASecondIndexOfTheName({ pc }) {
  const again = () => pc.createIndex({ name: NAME, dimension: 4, metric: 'cosine', spec: SPEC });
  await refused(again, 'PineconeConflictError', 'exists');
}

export async function refuseABadName({ pc }) {
  const bad = () => pc.createIndex({ name: 'Bad_Name', dimension: 4, metric: 'cosine', spec: SPEC });
  await refused(bad, 'PineconeBadRequestError', 'alphanumeric');
}

export async function refuseToDescribeAnUnknownIndex({ pc }) {
  await refused(() => pc.describeIndex('never'), 'PineconeNotFoundError', 'never');
}

export async function createAnIndexOfEachMetric({ pc }) {
  for (const metric of ['dotproduct', 'euclidean']) {
    await pc.createIndex({ name: metric, dimension: 2, metric, spec: SPEC, waitUntilReady: true });
  }
}

export async function createASparseIndex({ pc, idiom }) {
  const sparse = { name: 'sparse', metric: 'dotproduct', vectorType: 'sparse', spec: SPEC, waitUntilReady: true };
  await pc.createIndex(sparse);
  const index = idiom.index(pc, 'sparse');
  const sparseValues = { indices: [3, 70_000], values: [0.5, 1.25] };
  await idiom.upsert(index, [{ id: 's1', sparseValues }]);
  const { records } = await until(() => idiom.fetch(index, ['s1']), (shown) => 's1' in shown.records);
  deepStrictEqual(records.s1.sparseValues, sparseValues);
  ok((await pc.listIndexes()).indexes.some((one) => one.name === 'sparse'));
  await pc.deleteIndex('sparse');
}

export async function changeAndRemoveTags({ pc, idiom }) {
  deepStrictEqual((await pc.describeIndex(NAME)).tags, { team: 'a', old: 'x' });
  await idiom.configure(pc, NAME, { tags: { old: '', stage: 'live' } });
  deepStrictEqual((await pc.describeIndex(NAME)).tags, { team: 'a', stage: 'live' });
}

export async function protectAnIndexFromDeletion({ pc, idiom }) {
  await idiom.configure(pc, NAME, { deletionProtection: 'enabled' });
  deepStrictEqual((await pc.describeIndex(NAME)).deletionProtection, 'enabled');
  await refused(() => pc.deleteIndex(NAME), 'Pinecone', 'deletion protection is enabled');
  await idiom.configure(pc, NAME, { deletionProtection: 'disabled' });
}

export async function listCollectionsWhereThereAreNone({ pc }) {
  deepStrictEqual((await pc.listCollections()).collections, []);
}

export async function deleteIndexes({ pc }) {
  for (const { name } of (await pc.listIndexes()).indexes) await pc.deleteIndex(name);
  deepStrictEqual((await pc.listIndexes()).indexes, []);
}

export const CREATE = [
  createAnIndex,
  describeTheIndex,
  listIndexes,
  reachAnIndexByItsHost,
  findTheServerByTheEnvironment,
  refuseASecondIndexOfTheName,
  refuseABadName,
  refuseToDescribeAnUnknownIndex,
  createAnIndexOfEachMetric,
  createASparseIndex,
  changeAndRemoveTags,
  protectAnIndexFromDeletion,
  listCollectionsWhereThereAreNone,
];
