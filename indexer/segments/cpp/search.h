// One query over the slices of a namespace: exact scans, exact looks at a filter's rows, walks; the best of all of them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "distance.h"
#include "graph.h"
#include "walk.h"

namespace freshet {

enum Plan : uint32_t { kScan = 0, kWalk = 1 };

// Rows of one namespace in one segment. Row numbers count from the first of them.
struct Slice {
    const float* vectors;  // [rows, dimension]
    const float* norms;    // [rows] squared
    const uint8_t* mask;   // [rows] which may be answers; null = all
    const Graph* graph;    // null where there is none
    const Codes* codes;    // null where there are none
    uint32_t rows;
    uint32_t allowed;  // rows that may be answers
    uint32_t plan;  // becomes kScan where a walk found too little
    uint32_t ef;
    uint32_t budget;  // rows that a walk may look at before a scan takes over
    // Filled in by the search.
    uint32_t found;
    uint64_t evaluated;
    uint64_t nanoseconds;
};

struct Hit {
    double rank;
    uint32_t slice;
    uint32_t row;
};

inline bool better(const Hit& a, const Hit& b) { return a.rank > b.rank; }

class Search {
 public:
    Search(const float* query, uint32_t dimension, uint32_t metric, uint32_t wanted)
        : query_(query), dimension_(dimension), metric_(metric), wanted_(wanted) {}

    void add(Slice& slice, uint32_t number) {
        const auto begin = std::chrono::steady_clock::now();
        const Ruler ruler(query_, slice.vectors, slice.norms, dimension_, metric_);
        if (slice.plan == kScan || !slice.graph)
            scan(slice, number, ruler);
        else
            walk(slice, number, ruler);
        slice.nanoseconds =
            std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin).count();
    }

    // Sort and cut. `tied` says that rows of the last one's rank may have been left out.
    void finish(bool* tied) {
        std::sort(hits_.begin(), hits_.end(), better);
        *tied = false;
        if (hits_.size() > wanted_) {
            const double last = hits_[wanted_ - 1].rank;
            *tied = hits_[wanted_].rank == last;
            size_t end = wanted_;
            while (end < hits_.size() && hits_[end].rank == last) ++end;
            hits_.resize(end);
        }
        if (dropped_ && hits_.size() >= wanted_ && dropped_rank_ == hits_[wanted_ - 1].rank) *tied = true;
    }

    const std::vector<Hit>& hits() const { return hits_; }

 private:
    void scan(Slice& slice, uint32_t number, const Ruler& ruler) {
        std::vector<Hit> heap;  // the worst on top
        heap.reserve(std::min(wanted_, slice.allowed) + 1);
        // For as few rows as are wanted anyway a first look is one too many.
        if (slice.codes && slice.allowed > 4 * uint64_t(wanted_) + 64) {
            each(promising(slice, CodedRuler(ruler, *slice.codes)), ruler,
                 [&](uint32_t row) { offer(heap, Hit{ruler.rank(row), number, row}); });
        } else if (slice.mask) {
            each(allowed_rows(slice), ruler, [&](uint32_t row) { offer(heap, Hit{ruler.rank(row), number, row}); });
        } else {
            for (uint32_t row = 0; row < slice.rows; ++row) offer(heap, Hit{ruler.rank(row), number, row});
        }
        slice.evaluated += slice.allowed;
        slice.found = uint32_t(heap.size());
        hits_.insert(hits_.end(), heap.begin(), heap.end());
    }

    // Rows that lie apart are fetched before they are needed.
    template <typename Leading, typename Look>
    static void each(const std::vector<uint32_t>& rows, const Leading& ruler, Look look) {
        constexpr size_t kAhead = 4;
        for (size_t at = 0; at < rows.size(); ++at) {
            if (at + kAhead < rows.size()) ruler.prefetch(rows[at + kAhead]);
            look(rows[at]);
        }
    }

    static std::vector<uint32_t> allowed_rows(const Slice& slice) {
        std::vector<uint32_t> rows;
        rows.reserve(slice.allowed);
        for (uint32_t row = 0; row < slice.rows;) {
            uint64_t eight;
            if (slice.mask && row + 8 <= slice.rows && (std::memcpy(&eight, slice.mask + row, 8), eight == 0)) {
                row += 8;
                continue;
            }
            for (const uint32_t end = std::min(slice.rows, row + 8); row < end; ++row)
                if (!slice.mask || slice.mask[row]) rows.push_back(row);
        }
        return rows;
    }

    // The rows that may be among the best `wanted`, ties included: those whose best case reaches the worst case of as
    // many others.
    std::vector<uint32_t> promising(const Slice& slice, const CodedRuler& coded) const {
        struct Case {
            double best;
            uint32_t row;
        };
        std::vector<Case> cases;
        std::vector<double> worst;  // the least on top
        const auto look = [&](uint32_t row) {
            double bound;
            const double rank = coded.rank(row, &bound);
            if (worst.size() >= wanted_ && rank + bound < worst.front()) return;
            cases.push_back(Case{rank + bound, row});
            if (worst.size() >= wanted_) {
                if (rank - bound <= worst.front()) return;
                std::pop_heap(worst.begin(), worst.end(), std::greater<double>());
                worst.pop_back();
            }
            worst.push_back(rank - bound);
            std::push_heap(worst.begin(), worst.end(), std::greater<double>());
        };
        if (slice.mask)
            each(allowed_rows(slice), coded, look);
        else
            for (uint32_t row = 0; row < slice.rows; ++row) look(row);
        std::vector<uint32_t> rows;
        for (const Case& item : cases)
            if (worst.size() < wanted_ || item.best >= worst.front()) rows.push_back(item.row);
        return rows;
    }

    void offer(std::vector<Hit>& heap, const Hit& hit) {
        if (heap.size() < wanted_) {
            heap.push_back(hit);
            std::push_heap(heap.begin(), heap.end(), better);
            return;
        }
        if (!better(hit, heap.front())) {
            if (hit.rank == heap.front().rank) drop(hit.rank);
            return;
        }
        std::pop_heap(heap.begin(), heap.end(), better);
        const double out = heap.back().rank;
        heap.back() = hit;
        std::push_heap(heap.begin(), heap.end(), better);
        if (out == heap.front().rank) drop(out);
    }

    // Note that a row of this rank was left out; only the best such rank can matter.
    void drop(double rank) {
        if (!dropped_ || rank > dropped_rank_) dropped_rank_ = rank;
        dropped_ = true;
    }

    void walk(Slice& slice, uint32_t number, const Ruler& ruler) {
        const uint32_t enough = std::min(wanted_, slice.allowed);
        const double share = slice.mask ? double(slice.allowed) / slice.rows : 0;
        std::vector<uint32_t> seeds;
        // What the walk misses is looked for with more candidates, at last by a scan: as many as there are come back.
        for (uint64_t ef = std::max(slice.ef, enough); slice.evaluated < slice.budget; ef *= 2) {
            Walk walk(*slice.graph, ruler, slice.mask, uint32_t(ef), slice.budget - slice.evaluated, share * kAstray);
            const std::vector<Near>& best = walk.run();
            slice.evaluated += walk.evaluated();
            if (walk.is_complete() && best.size() >= enough) {
                keep(best, slice, number, ruler);
                return;
            }
            for (const Near& near : best) seeds.push_back(near.element);
            if (!walk.is_complete() || ef >= slice.allowed) break;
        }
        if (share >= kInside && walk_inside(slice, number, ruler, std::move(seeds))) return;
        slice.plan = kScan;
        scan(slice, number, ruler);
    }

    // What is near the query was left out by the mask. Where most rows are allowed their part of the graph holds
    // together: walk within it, from allowed rows all over it and from those that were met already.
    bool walk_inside(Slice& slice, uint32_t number, const Ruler& ruler, std::vector<uint32_t> seeds) {
        for (uint64_t at = 0; at < kSeeds; ++at) {
            uint64_t row = at * slice.rows / kSeeds;
            const uint64_t end = (at + 1) * slice.rows / kSeeds;
            while (row < end && !slice.mask[row]) ++row;
            if (row < end) seeds.push_back(uint32_t(row));
        }
        const uint32_t ef = std::max(slice.ef, std::min(wanted_, slice.allowed)) * kInsideWidth;
        Walk walk(*slice.graph, ruler, slice.mask, ef, uint64_t(slice.budget) * kInsideWidth);
        const std::vector<Near>& best = walk.run_inside(seeds);
        slice.evaluated += walk.evaluated();
        if (!walk.is_complete() || best.size() < std::min(ef, slice.allowed)) return false;
        keep(best, slice, number, ruler);
        return true;
    }

    void keep(const std::vector<Near>& best, Slice& slice, uint32_t number, const Ruler& ruler) {
        const size_t begin = hits_.size();
        for (const Near& near : best) hits_.push_back(Hit{ruler.rank(near.element), number, near.element});
        const size_t end = std::min<size_t>(hits_.size(), begin + wanted_);
        std::sort(hits_.begin() + begin, hits_.end(), better);
        size_t kept = end;
        while (kept > begin && kept < hits_.size() && hits_[kept].rank == hits_[end - 1].rank) ++kept;
        hits_.resize(kept);
        slice.found = uint32_t(kept - begin);
    }

    // Of the share of allowed rows: a walk that meets fewer is astray. Share from which on allowed rows hold together.
    static constexpr double kAstray = 0.25, kInside = 0.4;
    // Rows from which a walk within the allowed ones begins, and how much wider it is than others.
    static constexpr uint64_t kSeeds = 256;
    static constexpr uint32_t kInsideWidth = 3;

    const float* query_;
    const uint32_t dimension_, metric_, wanted_;
    std::vector<Hit> hits_;
    bool dropped_ = false;
    double dropped_rank_ = 0;
};

}  // namespace freshet
