// The C surface that indexer/segments/native.py calls. Nothing is thrown across it: calls return a code.
#include <cstring>
#include <new>
#include <stdexcept>

#include "build.h"
#include "pool.h"
#include "search.h"

using namespace freshet;

namespace {

enum Code : int32_t { kDone = 0, kOutOfMemory = 1, kFailed = 2, kUnsound = 3, kMistaken = 4 };

template <typename Work>
int32_t guarded(Work work) {
    try {
        return work();
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    } catch (const std::invalid_argument&) {
        return kMistaken;
    } catch (...) {
        return kFailed;
    }
}

void carry_out(Job* job) {
    job->code = guarded([&] {
        const SparseQuery sparse{job->sparse_indices, job->sparse_values, job->sparse_count};
        Search search(job->query, job->dimension, job->metric, sparse, job->wanted);
        for (uint32_t at = 0; at < job->count; ++at) {
            Slice& slice = job->slices[at];
            slice.evaluated = slice.nanoseconds = 0;
            slice.found = 0;
            if (job->wanted) search.add(slice, at);
        }
        bool is_tied = false;
        search.finish(&is_tied);
        job->found = uint32_t(std::min<size_t>(search.hits().size(), job->room));
        if (job->found) std::memcpy(job->hits, search.hits().data(), job->found * sizeof(Hit));
        job->tied = is_tied;
        return kDone;
    });
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Raised with every change of a signature or a structure here.
uint32_t freshet_interface() { return 3; }

int32_t freshet_check(const Graph* graph) {
    return guarded([&] { return graph->is_sound() ? kDone : kUnsound; });
}

// Carry out a search: `hits` takes up to `room` of them, best first; `found`, `tied` and `code` are set.
int32_t freshet_search(Job* job) {
    carry_out(job);
    return job->code;
}

// Threads that carry out jobs; a byte is written to `pipe` when there is something to take after there was not.
int32_t freshet_pool_new(uint32_t threads, int32_t pipe, Pool** pool) {
    return guarded([&] {
        *pool = new Pool(threads, pipe, carry_out);
        return kDone;
    });
}

int32_t freshet_pool_submit(Pool* pool, Job* job) {
    return guarded([&] {
        pool->submit(job);
        return kDone;
    });
}

uint32_t freshet_pool_take(Pool* pool, uint64_t* tickets, uint32_t room) { return pool->take(tickets, room); }

// Finishes what was submitted first.
void freshet_pool_free(Pool* pool) { delete pool; }

// Rank every row of a slice of a job as its plan says: float64 [rows], NaN for rows that a sparse query leaves out.
int32_t freshet_ranks(const Job* job, uint32_t at, double* ranks) {
    return guarded([&] {
        const Slice& slice = job->slices[at];
        const SparseQuery sparse{job->sparse_indices, job->sparse_values, job->sparse_count};
        rank_all(slice, job->query, job->dimension, job->metric, sparse, ranks);
        return kDone;
    });
}

int32_t freshet_builder_new(const float* vectors, uint32_t elements, uint32_t dimension, uint32_t metric, uint32_t m,
                            uint32_t ef_construction, uint32_t seed, Builder** builder) {
    return guarded([&] {
        *builder = new Builder(vectors, elements, dimension, metric, m, ef_construction, seed);
        return kDone;
    });
}

int32_t freshet_builder_load(Builder* builder, const Graph* graph, const uint32_t* ids, uint32_t rows, uint32_t seed) {
    return guarded([&] {
        builder->load(*graph, ids, rows, seed);
        return kDone;
    });
}

int32_t freshet_builder_add(Builder* builder, const uint32_t* ids, uint32_t count, uint32_t threads) {
    return guarded([&] {
        builder->add(ids, count, threads);
        return kDone;
    });
}

int32_t freshet_builder_measure(const Builder* builder, Graph* sizes) {
    return guarded([&] {
        builder->measure(*sizes);
        return kDone;
    });
}

int32_t freshet_builder_write(const Builder* builder, uint32_t* links, uint32_t* upper_nodes, uint32_t* upper_starts,
                              uint32_t* upper_links) {
    return guarded([&] {
        builder->write(links, upper_nodes, upper_starts, upper_links);
        return kDone;
    });
}

void freshet_builder_free(Builder* builder) { delete builder; }

}  // extern "C"
#pragma GCC visibility pop
