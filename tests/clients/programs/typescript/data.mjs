// Steps on the records of an index: every operation, and what comes back to the last digit.
import { deepStrictEqual, ok } from 'node:assert';
import { counts, equal, refused, until, waitForCounts } from './walk.mjs';

// Numbers whose shortest float32 decimals are these.
const EXACT = [0.1, -3.4e-5, 16777216, 0.33333334];
const METADATA = {
  text: 'Käse, 芝士 and "quotes"', whole: 7, part: 0.1, large: 1732492800, yes: true, no: false, words: ['a', 'b'],
};
const FILMS = [
  { id: 'f1', values: [1, 0, 0, 0], metadata: { genre: 'comedy', year: 2020, tags: ['old', 'fun'], seen: true } },
  { id: 'f2', values: [0.8, 0.6, 0, 0], metadata: { genre: 'documentary', year: 2019, seen: false } },
  { id: 'f3', values: [0, 1, 0, 0], metadata: { genre: 'comedy', year: 2019, tags: ['fun'] } },
  { id: 'f4', values: [-1, 0, 0, 0], metadata: { genre: 'drama' } },
];
const FILTERS = [
  [{ genre: 'comedy' }, ['f1', 'f3']],
  [{ genre: { $eq: 'drama' } }, ['f4']],
  [{ genre: { $ne: 'comedy' } }, ['f2', 'f4']],
  [{ genre: { $in: ['drama', 'documentary'] } }, ['f2', 'f4']],
  [{ genre: { $nin: ['drama', 'documentary'] } }, ['f1', 'f3']],
  [{ year: { $gt: 2019 } }, ['f1']],
  [{ year: { $gte: 2019 } }, ['f1', 'f2', 'f3']],
  [{ year: { $lt: 2020 } }, ['f2', 'f3']],
  [{ year: { $lte: 2019.5 } }, ['f2', 'f3']],
  [{ year: { $exists: false } }, ['f4']],
  [{ tags: 'old' }, ['f1']],
  [{ seen: true }, ['f1']],
  [{ $and: [{ genre: 'comedy' }, { year: 2019 }] }, ['f3']],
  [{ $or: [{ genre: 'drama' }, { year: { $gt: 2019 } }] }, ['f1', 'f4']],
];
const AXIS = [1, 0, 0, 0];

export async function fetchExactValuesAndMetadata({ index, idiom }) {
  const forms = index.namespace('forms');
  await idiom.upsert(forms, [{ id: 'd1', values: EXACT, metadata: METADATA }]);
  const answer = await until(() => idiom.fetch(forms, ['d1', 'never']), (shown) => 'd1' in shown.records);
  deepStrictEqual(Object.keys(answer.records), ['d1']);
  deepStrictEqual(answer.records.d1.values, EXACT);
  deepStrictEqual(answer.records.d1.metadata, METADATA);
  deepStrictEqual(answer.namespace, 'forms');
  ok(answer.usage.readUnits > 0);
}

export async function queryByVectorWithScores({ index, idiom }) {
  const films = index.namespace('films');
  await idiom.upsert(films, FILMS);
  await until(() => index.describeIndexStats(), (stats) => counts(stats).films === 4);
  const answer = await films.query({ vector: [2, 0, 0, 0], topK: 10 });
  deepStrictEqual(answer.matches.map((match) => match.id), ['f1', 'f2', 'f3', 'f4']);
  [1, 0.8, 0, -1].forEach((score, at) => ok(Math.abs(answer.matches[at].score - score) < 1e-6));
  ok(answer.matches.every((match) => match.values.length === 0 && match.metadata === undefined));
  deepStrictEqual(answer.namespace, 'films');
  ok(answer.usage.readUnits > 0);
}

export async function queryWithValuesAndMetadata({ index }) {
  const question = { vector: AXIS, topK: 2, includeValues: true, includeMetadata: true };
  const { matches } = await index.namespace('films').query(question);
  deepStrictEqual(matches.map(({ id, values, metadata }) => ({ id, values, metadata })), FILMS.slice(0, 2));
}

export async function queryById({ index }) {
  const films = index.namespace('films');
  const { matches } = await films.query({ id: 'f2', topK: 1 });
  deepStrictEqual(matches[0].id, 'f2');
  ok(Math.abs(matches[0].score - 1) < 1e-6);
  deepStrictEqual((await films.query({ id: 'never', topK: 1 })).matches, []);
}

export async function queryWithEveryFilter({ index }) {
  for (const [filter, wanted] of FILTERS) {
    const { matches } = await index.namespace('films').query({ vector: AXIS, topK: 10, filter });
    deepStrictEqual(matches.map((match) => match.id).sort(), wanted, JSON.stringify(filter));
  }
}

export async function queryByTheZeroVector({ index }) {
  const { matches } = await index.namespace('films').query({ vector: [0, 0, 0, 0], topK: 4 });
  deepStrictEqual(matches.map((match) => match.score), [0, 0, 0, 0]);
}

export async function queryANamespaceThatWasNeverWritten({ index }) {
  deepStrictEqual((await index.namespace('never').query({ vector: AXIS, topK: 3 })).matches, []);
}

export async function queryByOtherMetrics({ pc, idiom }) {
  // The raw inner product, greatest first; the squared distance, least first.
  for (const [metric, vector, scores] of [['dotproduct', [2, 0.5], [6, 1.5]], ['euclidean', [3, 1], [1, 8]]]) {
    const index = idiom.index(pc, metric);
    await idiom.upsert(index, [{ id: 'long', values: [3, 0] }, { id: 'short', values: [1, -1] }]);
    await waitForCounts(index, { __default__: 2 });
    const { matches } = await index.query({ vector, topK: 2 });
    deepStrictEqual(matches.map(({ id, score }) => [id, score]), [['long', scores[0]], ['short', scores[1]]]);
  }
}

export async function queryDenseAndSparseValues({ pc, index, idiom }) {
  const hybrid = idiom.index(pc, 'dotproduct').namespace('hybrid');
  await idiom.upsert(hybrid, [
    { id: 'both', values: [1, 0], sparseValues: { indices: [7, 9], values: [0.5, 2] } },
    { id: 'sparse', values: [0.5, 0.5], sparseValues: { indices: [9], values: [4] } },
  ]);
  const sparseVector = { indices: [7, 9], values: [2, 0.5] };
  const ask = () => hybrid.query({ vector: [1, 0], sparseVector, topK: 3 });
  const { matches } = await until(ask, (shown) => shown.matches.length === 2);
  // The dense product and the sparse one, added as they are.
  deepStrictEqual(matches.map(({ id, score }) => [id, score]), [['both', 3], ['sparse', 2.5]]);
  const name = 'PineconeBadRequestError';
  await refused(() => index.query({ vector: EXACT, sparseVector, topK: 1 }), name, 'sparse values');
}

export async function listIdsInPages({ index, idiom }) {
  const pages = index.namespace('pages');
  const name = (at) => `id-${String(at).padStart(3, '0')}`;
  const records = Array.from({ length: 250 }, (_, at) => ({ id: name(at), values: [1, at / 256, 0, 0] }));
  await idiom.upsert(pages, records);
  await until(() => index.describeIndexStats(), (stats) => counts(stats).pages === 250);
  const sizes = [];
  const found = [];
  let paginationToken;
  do {
    const page = await pages.listPaginated({ limit: 100, paginationToken });
    sizes.push(page.vectors.length);
    found.push(...page.vectors.map((item) => item.id));
    paginationToken = page.pagination?.next;
  } while (paginationToken);
  deepStrictEqual(sizes, [100, 100, 50]);
  deepStrictEqual(found, records.map((record) => record.id));
}

export async function listIdsByPrefix({ index }) {
  const { vectors } = await index.namespace('pages').listPaginated({ prefix: 'id-02' });
  deepStrictEqual(vectors.map((item) => item.id), Array.from({ length: 10 }, (_, at) => `id-02${at}`));
}

export async function updateValuesAndMetadata({ index, idiom }) {
  const forms = index.namespace('forms');
  await forms.update({ id: 'd1', values: [0.1, 0.2, 0.3, 0.4], metadata: { part: 0.2 } });
  const read = async () => (await idiom.fetch(forms, ['d1'])).records.d1;
  const record = await until(read, (shown) => equal(shown.values, [0.1, 0.2, 0.3, 0.4]));
  deepStrictEqual(record.metadata, { ...METADATA, part: 0.2 });
}

export async function updateByFilter({ index, idiom }) {
  const films = index.namespace('films');
  await films.update({ filter: { genre: { $eq: 'comedy' } }, metadata: { funny: true } });
  const read = async () => (await idiom.fetch(films, ['f1', 'f2', 'f3'])).records;
  const { f2 } = await until(read, ({ f1, f3 }) => f1.metadata.funny === true && f3.metadata.funny === true);
  ok(!('funny' in f2.metadata));
}

export async function fetchByMetadata({ index }) {
  const films = index.namespace('films');
  const filter = { genre: { $eq: 'comedy' } };
  const first = await films.fetchByMetadata({ filter, limit: 1 });
  deepStrictEqual(Object.keys(first.records), ['f1']);
  const second = await films.fetchByMetadata({ filter, limit: 1, paginationToken: first.pagination.next });
  deepStrictEqual(Object.keys(second.records), ['f3']);
  deepStrictEqual(second.records.f3.values, FILMS[2].values);
  deepStrictEqual(second.namespace, 'films');
  ok(!second.pagination?.next);
}

export async function createDescribeListAndDeleteNamespaces({ index }) {
  deepStrictEqual((await index.createNamespace({ name: 'made' })).name, 'made');
  await refused(() => index.createNamespace({ name: 'made' }), 'PineconeConflictError', 'exist');
  const made = await index.describeNamespace('made');
  deepStrictEqual([made.name, Number(made.recordCount)], ['made', 0]);
  const names = (await index.listNamespaces({ limit: 100 })).namespaces.map((one) => one.name);
  ok(['films', 'forms', 'made'].every((name) => names.includes(name)), String(names));
  await index.deleteNamespace('made');
  await until(() => index.describeIndexStats(), (stats) => !('made' in stats.namespaces));
  await refused(() => index.describeNamespace('made'), 'PineconeNotFoundError', 'made');
}

export async function deleteByIdByFilterAndAll({ index, idiom }) {
  const films = index.namespace('films');
  await idiom.deleteOne(films, 'f1');
  await idiom.deleteMany(films, ['f2', 'unknown']);
  await until(() => idiom.fetch(films, ['f1', 'f2', 'f3']), (shown) => equal(Object.keys(shown.records), ['f3']));
  await idiom.deleteManyByFilter(films, { genre: 'comedy' });
  await until(() => index.describeIndexStats(), (stats) => counts(stats).films === 1);
  await index.namespace('pages').deleteAll();
  await until(() => index.describeIndexStats(), (stats) => counts(stats).pages === 0);
}

export async function refuseToDeleteInAnUnknownNamespace({ index, idiom }) {
  await refused(() => idiom.deleteOne(index.namespace('never'), 'x'), 'PineconeNotFoundError', '404');
}

export async function describeIndexStats({ index }) {
  const stats = await waitForCounts(index, { films: 1, forms: 1, pages: 0 });
  deepStrictEqual([stats.dimension, stats.totalRecordCount], [4, 2]);
}

export async function refuseMistakes({ index, idiom }) {
  const name = 'PineconeBadRequestError';
  const text = 'Vector dimension 3 does not match the dimension of the index 4';
  await refused(() => idiom.upsert(index, [{ id: 'x', values: [1, 2, 3] }]), name, text);
  await refused(() => idiom.upsert(index, [{ id: 'x', values: [0, 0, 0, 0] }]), name, 'zero');
  await refused(() => idiom.upsert(index, [{ id: 'x', values: EXACT, metadata: { in: { a: 1 } } }]), name, "'in'");
  await refused(() => index.query({ vector: EXACT, topK: 1, filter: { year: { $near: 1 } } }), name, '$near');
}

export const RECORDS = [
  fetchExactValuesAndMetadata,
  queryByVectorWithScores,
  queryWithValuesAndMetadata,
  queryById,
  queryWithEveryFilter,
  queryByTheZeroVector,
  queryANamespaceThatWasNeverWritten,
  queryByOtherMetrics,
  queryDenseAndSparseValues,
  listIdsInPages,
  listIdsByPrefix,
  updateValuesAndMetadata,
];
export const END = [deleteByIdByFilterAndAll, refuseToDeleteInAnUnknownNamespace, describeIndexStats, refuseMistakes];
// Since generation 7.
export const LATER = [fetchByMetadata, updateByFilter, createDescribeListAndDeleteNamespaces];
