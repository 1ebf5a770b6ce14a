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

// Finds the rows that may be among the best `wanted` of those looked at, ties included: those whose best case reaches
// the worst case of as many others.
class Promising {
 public:
    Promising(const CodedRuler& coded, uint32_t wanted) : coded_(coded), wanted_(wanted) {}

    void look(uint32_t row) {
        double bound;
        const double rank = coded_.rank(row, &bound);
        if (worst_.size() >= wanted_ && rank + bound < worst_.front()) return;
        cases_.push_back(Case{rank + bound, row});
        if (worst_.size() >= wanted_) {
            if (rank - bound <= worst_.front()) return;
            std::pop_heap(worst_.begin(), worst_.end(), std::greater<double>());
            worst_.pop_back();
        }
        worst_.push_back(rank - bound);
        std::push_heap(worst_.begin(), worst_.end(), std::greater<double>());
    }

    std::vector<uint32_t> rows() const {
        std::vector<uint32_t> rows;
        for (const Case& item : cases_)
            if (worst_.size() < wanted_ || item.best >= worst_.front()) rows.push_back(item.row);
        return rows;
    }

 private:
    struct Case {
        double best;
        uint32_t row;
    };

    const CodedRuler& coded_;
    const uint32_t wanted_;
    std::vector<Case> cases_;
    std::vector<double> worst_;  // the least on top
};

class Search {
 public:
    Search(const float* query, uint32_t dimension, uint32_t metric, uint32_t wanted)
        : query_(query), dimension_(dimension), metric_(metric), wanted_(wanted) {}

    void add(Slice& slice, uint32_t number) {
        const auto begin = std::chrono::steady_clock::now();
        const Ruler ruler(query_, slice.vectors, slice.norms, dimension_, metric_);
        // A graph of other rows would lead behind the mask.
        if (slice.plan == kScan || !slice.graph || slice.graph->rows != slice.rows)
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
            const CodedRuler coded(ruler, *slice.codes);
            Promising promising(coded, wanted_);
            if (slice.mask)
                each(allowed_rows(slice), coded, [&](uint32_t row) { promising.look(row); });
            else
                for (uint32_t row = 0; row < slice.rows; ++row) promising.look(row);
            each(promising.rows(), ruler, [&](uint32_t row) { offer(heap, Hit{ruler.rank(row), number, row}); });
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
        std::vector<uint32_t> rows;
        // Codes may have the last candidates in another order, so they have to be a few more than are wanted.
        if (slice.codes && slice.codes->leads && slice.ef >= enough + enough / 4 + 8) {
            const CodedRuler coded(ruler, *slice.codes);
            if (gather(slice, CodedGuide{coded, slice.graph->rows}, enough, rows)) {
                Promising promising(coded, wanted_);
                for (const uint32_t row : rows) promising.look(row);
                keep(promising.rows(), slice, number, ruler);
                return;
            }
        } else if (gather(slice, ruler, enough, rows)) {
            keep(rows, slice, number, ruler);
            return;
        }
        slice.plan = kScan;
        scan(slice, number, ruler);
    }

    // Finds the rows that a walk ends with, in no order; false where there are not `enough` and a scan has to do.
    template <typename Guide>
    static bool gather(Slice& slice, const Guide& guide, uint32_t enough, std::vector<uint32_t>& rows) {
        const double share = slice.mask ? double(slice.allowed) / slice.rows : 0;
        // What the walk misses is looked for with more candidates, at last by a scan: as many as there are come back.
        for (uint64_t ef = std::max({slice.ef, enough, 1u}); slice.evaluated < slice.budget; ef *= 2) {
            const uint64_t left = slice.budget - slice.evaluated;
            Walk<Guide> walk(*slice.graph, guide, slice.mask, ef, left, share * kAstray);
            const std::vector<Near>& best = walk.run();
            slice.evaluated += walk.evaluated();
            const bool is_enough = walk.is_complete() && best.size() >= enough;
            if (is_enough) rows.clear();
            for (const Near& near : best) rows.push_back(near.element);
            if (is_enough) return true;
            if (!walk.is_complete() || ef >= slice.allowed) break;
        }
        return share >= kInside && gather_inside(slice, guide, enough, rows);
    }

    // What is near the query was left out by the mask. Where most rows are allowed their part of the graph holds
    // together: walk within it, from allowed rows all over it and from `rows`, those that were met already.
    template <typename Guide>
    static bool gather_inside(Slice& slice, const Guide& guide, uint32_t enough, std::vector<uint32_t>& rows) {
        for (uint64_t at = 0; at < kSeeds; ++at) {
            uint64_t row = at * slice.rows / kSeeds;
            const uint64_t end = (at + 1) * slice.rows / kSeeds;
            while (row < end && !slice.mask[row]) ++row;
            if (row < end) rows.push_back(uint32_t(row));
        }
        const uint64_t ef = std::max({slice.ef, enough, 1u}) * uint64_t(kInsideWidth);
        Walk<Guide> walk(*slice.graph, guide, slice.mask, ef, uint64_t(slice.budget) * kInsideWidth);
        const std::vector<Near>& best = walk.run_inside(rows);
        slice.evaluated += walk.evaluated();
        if (!walk.is_complete() || best.size() < std::min<uint64_t>(ef, slice.allowed)) return false;
        rows.clear();
        for (const Near& near : best) rows.push_back(near.element);
        return true;
    }

    void keep(const std::vector<uint32_t>& rows, Slice& slice, uint32_t number, const Ruler& ruler) {
        const size_t begin = hits_.size();
        each(rows, ruler, [&](uint32_t row) { hits_.push_back(Hit{ruler.rank(row), number, row}); });
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
