// Building graphs with hnswlib's own algorithm, over its public members; links go in and out as columns.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "distance.h"
#include "graph.h"
#include "hnswlib.h"

namespace freshet {

// The library's hook for a distance of one's own.
class Space : public hnswlib::SpaceInterface<float> {
 public:
    Space(uint32_t dimension, uint32_t metric) : dimension_(dimension), metric_(metric) {}

    size_t get_data_size() override { return dimension_ * sizeof(float); }
    void* get_dist_func_param() override { return &dimension_; }
    hnswlib::DISTFUNC<float> get_dist_func() override {
        if (metric_ == kEuclidean)
            return [](const void* a, const void* b, const void* dimension) {
                return squared_distance(static_cast<const float*>(a), static_cast<const float*>(b),
                                        *static_cast<const size_t*>(dimension));
            };
        return [](const void* a, const void* b, const void* dimension) {
            return 1.0f - dot(static_cast<const float*>(a), static_cast<const float*>(b),
                              *static_cast<const size_t*>(dimension));
        };
    }

 private:
    size_t dimension_;
    uint32_t metric_;
};

class Builder {
 public:
    Builder(const float* vectors, uint32_t elements, uint32_t dimension, uint32_t metric, uint32_t m,
            uint32_t ef_construction, uint32_t seed)
        : vectors_(vectors), elements_(elements), dimension_(dimension), metric_(metric), space_(dimension, metric),
          index_(&space_, elements, m, ef_construction, seed), is_taken_(elements) {
        // With one link per element the library's levels have no end.
        if (m < 2 || m > 10000) throw std::invalid_argument("m");
        take_large_pages(index_.data_level0_memory_, size_t(elements) * index_.size_data_per_element_);
    }

    // Take over a graph whose element i is now number ids[i]; those numbered `rows` and up are dead.
    void load(const Graph& graph, const uint32_t* ids, uint32_t rows, uint32_t seed) {
        if (index_.cur_element_count != 0 || graph.m0 != index_.maxM0_ || graph.m != index_.maxM_)
            throw std::invalid_argument("graph");
        take(ids, graph.elements);
        for (uint32_t element = 0; element < graph.elements; ++element) {
            char* at = index_.data_level0_memory_ + element * index_.size_data_per_element_;
            std::memset(at, 0, index_.size_data_per_element_);
            put_links(reinterpret_cast<uint32_t*>(at), graph.links + uint64_t(element) * graph.m0, graph.m0);
            copy_vector(ids[element], reinterpret_cast<float*>(at + index_.offsetData_));
            index_.setExternalLabel(element, ids[element]);
            index_.element_levels_[element] = 0;
            // Counted at once: from here on the library frees what is allocated.
            index_.cur_element_count = element + 1;
        }
        for (uint32_t at = 0; at < graph.upper; ++at) {
            const uint32_t element = graph.upper_nodes[at];
            const uint32_t levels = graph.upper_starts[at + 1] - graph.upper_starts[at];
            char* lists = static_cast<char*>(std::calloc(1, levels * index_.size_links_per_element_ + sizeof(uint32_t)));
            if (!lists) throw std::bad_alloc();
            index_.linkLists_[element] = lists;
            index_.element_levels_[element] = int(levels);
            for (uint32_t level = 0; level < levels; ++level)
                put_links(reinterpret_cast<uint32_t*>(lists + level * index_.size_links_per_element_),
                          graph.upper_links + uint64_t(graph.upper_starts[at] + level) * graph.m, graph.m);
        }
        index_.enterpoint_node_ = graph.entry;
        index_.maxlevel_ = int(graph.top_level);
        mark_dead(graph, ids, rows);
        // Started anew with the old seed it would give new elements the levels of the old ones.
        index_.level_generator_.seed(seed + graph.elements);
    }

    void add(const uint32_t* ids, uint32_t count, uint32_t threads) {
        take(ids, count);
        // The first element of all becomes the entry: alone.
        std::atomic<uint32_t> next{0};
        if (count && index_.cur_element_count == 0) add_one(ids[next++]);
        std::exception_ptr failure;
        std::mutex failing;
        const auto work = [&] {
            try {
                for (uint32_t at; (at = next++) < count;) add_one(ids[at]);
            } catch (...) {
                const std::lock_guard<std::mutex> guard(failing);
                failure = std::current_exception();
                next = count;
            }
        };
        std::vector<std::thread> workers;
        try {
            for (uint32_t at = 1; at < threads; ++at) workers.emplace_back(work);
        } catch (const std::system_error&) {
            // No more threads to be had: those there are do all of it.
        }
        work();
        for (std::thread& worker : workers) worker.join();
        if (failure) std::rethrow_exception(failure);
    }

    void measure(Graph& sizes) const {
        if (index_.cur_element_count == 0) throw std::invalid_argument("nothing was added");
        sizes.elements = elements_;
        sizes.m0 = uint32_t(index_.maxM0_);
        sizes.m = uint32_t(index_.maxM_);
        sizes.upper = sizes.upper_lists = 0;
        for (uint32_t element = 0; element < index_.cur_element_count; ++element) {
            sizes.upper += index_.element_levels_[element] > 0;
            sizes.upper_lists += uint32_t(index_.element_levels_[element]);
        }
        sizes.entry = label(index_.enterpoint_node_);
        sizes.top_level = uint32_t(index_.maxlevel_);
    }

    // Write the links under the numbers of the elements; those that were not added have none.
    void write(uint32_t* links, uint32_t* upper_nodes, uint32_t* upper_starts, uint32_t* upper_links) const {
        const size_t m0 = index_.maxM0_, m = index_.maxM_;
        std::fill(links, links + uint64_t(elements_) * m0, kNone);
        std::vector<std::pair<uint32_t, uint32_t>> upper;
        for (uint32_t element = 0; element < index_.cur_element_count; ++element) {
            get_links(index_.get_linklist0(element), links + uint64_t(label(element)) * m0);
            if (index_.element_levels_[element] > 0) upper.emplace_back(label(element), element);
        }
        std::sort(upper.begin(), upper.end());
        uint32_t list = 0;
        for (size_t at = 0; at < upper.size(); ++at) {
            upper_nodes[at] = upper[at].first;
            upper_starts[at] = list;
            for (int level = 1; level <= index_.element_levels_[upper[at].second]; ++level, ++list) {
                std::fill(upper_links + list * m, upper_links + (list + 1) * m, kNone);
                get_links(index_.get_linklist(upper[at].second, level), upper_links + list * m);
            }
        }
        upper_starts[upper.size()] = list;
    }

 private:
    // Every number once, and none from outside: they say where vectors are read and links are written.
    void take(const uint32_t* ids, uint32_t count) {
        for (uint32_t at = 0; at < count; ++at) {
            if (ids[at] >= elements_ || is_taken_[ids[at]]) throw std::invalid_argument("ids");
            is_taken_[ids[at]] = true;
        }
    }

    // What the library marks is passed through and never linked to anew, and it reads wild where, at some level, it finds
    // nothing but marked elements. So the entry stays unmarked, and what leads to no unmarked element at each of its
    // levels: the lists of marked elements do not change, so that holds while others are added.
    void mark_dead(const Graph& graph, const uint32_t* ids, uint32_t rows) {
        constexpr int kPasses = 16;
        std::vector<bool> is_marked(graph.elements);
        for (uint32_t element = 0; element < graph.elements; ++element)
            is_marked[element] = ids[element] >= rows && element != graph.entry;
        std::vector<uint32_t> pending;
        for (int level = index_.maxlevel_; level >= 0; --level) {
            std::vector<bool> leads(graph.elements);
            pending.clear();
            for (uint32_t element = 0; element < graph.elements; ++element) {
                leads[element] = !is_marked[element];
                if (is_marked[element] && index_.element_levels_[element] >= level) pending.push_back(element);
            }
            const auto leads_on = [&](uint32_t element) -> bool {
                const uint32_t* list = index_.get_linklist_at_level(element, level);
                const uint32_t* end = list + 1 + index_.getListCount(const_cast<uint32_t*>(list));
                return leads[element] = std::any_of(list + 1, end, [&](uint32_t to) { return leads[to]; });
            };
            size_t before = pending.size() + 1;
            for (int pass = 0; pass < kPasses && pending.size() < before; ++pass) {
                before = pending.size();
                pending.erase(std::remove_if(pending.begin(), pending.end(), leads_on), pending.end());
            }
            for (const uint32_t element : pending) is_marked[element] = false;
        }
        for (uint32_t element = 0; element < graph.elements; ++element)
            if (is_marked[element]) index_.markDeletedInternal(element);
    }

    void add_one(uint32_t id) {
        std::vector<float> vector(dimension_);
        copy_vector(id, vector.data());
        index_.addPoint(vector.data(), id);
    }

    // Elements are visited all over their memory: with large pages few addresses have to be looked up. Only a hint.
    static void take_large_pages(char* memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
        constexpr uintptr_t kPage = uintptr_t(2) << 20;
        const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
        const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
        if (begin < end) static_cast<void>(::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
#endif
    }

    uint32_t label(uint32_t element) const { return uint32_t(index_.getExternalLabel(element)); }

    void put_links(uint32_t* list, const uint32_t* from, uint32_t most) const {
        uint32_t count = 0;
        while (count < most && from[count] != kNone) ++count;
        index_.setListCount(list, static_cast<unsigned short>(count));
        std::memcpy(list + 1, from, count * sizeof(uint32_t));
    }

    void get_links(const uint32_t* list, uint32_t* to) const {
        const uint32_t count = index_.getListCount(const_cast<uint32_t*>(list));
        for (uint32_t at = 0; at < count; ++at) to[at] = label(list[1 + at]);
    }

    void copy_vector(uint32_t id, float* to) const {
        const float* from = vectors_ + uint64_t(id) * dimension_;
        std::memcpy(to, from, dimension_ * sizeof(float));
        if (metric_ != kCosine) return;
        const float norm = std::sqrt(dot(from, from, dimension_));
        for (uint32_t at = 0; norm > 0 && at < dimension_; ++at) to[at] /= norm;
    }

    const float* vectors_;
    const uint32_t elements_, dimension_, metric_;
    Space space_;
    mutable hnswlib::HierarchicalNSW<float> index_;
    std::vector<bool> is_taken_;
};

}  // namespace freshet
