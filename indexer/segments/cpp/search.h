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
#include "sparse.h"
#include "walk.h"

namespace freshet {

// kSparse looks at the rows that share an index with the query, and at nothing dense.
enum Plan : uint32_t { kScan = 0, kWalk = 1, kSparse = 2 };

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
    // What a query with a sparse part looks at beside; null where no row has sparse values.
    const SparseColumns* sparse;
    uint64_t first;  // number of the first row in the segment, by which the sparse columns count
};

struct Hit {
    double rank;
    uint32_t slice;
    uint32_t row;
};

inline bool better(const Hit& a, const Hit& b) { return a.rank > b.rank; }

// The rank of a row by both of its parts; the sparse one is finite.
inline double sum_of(double dense, double sparse) { return dense + sparse; }

// Finds the rows that may be among the best `wanted` of those looked at, ties included: those whose best case reaches
// the worst case of as many others.
class Promising {
 public:
    Promising(const CodedRuler& coded, uint32_t wanted) : coded_(coded), wanted_(wanted) {}

    // `more` is added to the rank.
    void look(uint32_t row, double more = 0) {
        double bound;
        double rank = coded_.rank(row, &bound);
        if (more != 0) {
            bound += (std::fabs(rank) + std::fabs(more)) * kSumError;
            rank += more;
        }
        if (worst_.size() >= wanted_ && rank + bound < worst_.front()) return;
        cases_.push_back(Case{rank + bound, more, row});
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
        each([&](uint32_t row, double) { rows.push_back(row); });
        return rows;
    }

    // Calls see(row, more) for the same rows.
    template <typename See>
    void each(See see) const {
        for (const Case& item : cases_)
            if (worst_.size() < wanted_ || item.best >= worst_.front()) see(item.row, item.more);
    }

 private:
    // Of two sums of a rank and what is added to it, both rounded: more than that.
    static constexpr double kSumError = 1e-15;

    struct Case {
        double best;
        double more;
        uint32_t row;
    };

    const CodedRuler& coded_;
    const uint32_t wanted_;
    std::vector<Case> cases_;
    std::vector<double> worst_;  // the least on top
};

// Rank every row of a slice; a row that a sparse query leaves out has no rank: NaN.
inline void rank_all(const Slice& slice, const float* query, uint32_t dimension, uint32_t metric,
                     const SparseQuery& sparse, double* ranks) {
    const bool is_dense = slice.plan != kSparse;
    const Ruler ruler(query, slice.vectors, slice.norms, dimension, metric);
    for (uint32_t row = 0; row < slice.rows; ++row) ranks[row] = is_dense ? ruler.rank(row) : NAN;
    if (!slice.sparse || !sparse.count) return;
    SparseScorer scorer(sparse, *slice.sparse, slice.first, slice.rows);
    scorer.each_block([&](uint32_t begin, uint32_t end, const double* scores, const uint8_t* shares) {
        for (uint32_t row = begin; row < end; ++row) {
            if (is_dense)
                ranks[row] = sum_of(ranks[row], scores[row - begin]);
            else if (shares[row - begin])
                ranks[row] = scores[row - begin];
        }
    });
}

class Search {
 public:
    Search(const float* query, uint32_t dimension, uint32_t metric, const SparseQuery& sparse, uint32_t wanted)
        : query_(query), dimension_(dimension), metric_(metric), sparse_(sparse), wanted_(wanted) {}

    void add(Slice& slice, uint32_t number) {
        const auto begin = std::chrono::steady_clock::now();
        const Ruler ruler(query_, slice.vectors, slice.norms, dimension_, metric_);
        // A graph of other rows would lead behind the mask.
        if (slice.plan == kWalk && (!slice.graph || slice.graph->rows != slice.rows)) slice.plan = kScan;
        if (slice.plan == kSparse)
            look_at_sparse(slice, number);
        else if (slice.sparse && sparse_.count)
            look_at_both(slice, number, ruler);
        else if (slice.plan == kScan)
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

    void look_at_sparse(Slice& slice, uint32_t number) {
        if (!slice.sparse || !sparse_.count) return;
        std::vector<Hit> heap;
        SparseScorer scorer(sparse_, *slice.sparse, slice.first, slice.rows);
        scorer.each_block([&](uint32_t begin, uint32_t end, const double* scores, const uint8_t* shares) {
            for (uint32_t row = begin; row < end; ++row) {
                if (!shares[row - begin] || (slice.mask && !slice.mask[row])) continue;
                ++slice.evaluated;
                offer(heap, Hit{scores[row - begin], number, row});
            }
        });
        slice.found = uint32_t(heap.size());
        hits_.insert(hits_.end(), heap.begin(), heap.end());
    }

    // Looks at all rows whose rank by both parts may be among the best. A walk finds the rows that lead by the dense
    // part; no other row ranks higher by it than the last of these, as far as the walk can be trusted, so those are
    // left out whose sparse part would not make up for that. False, and nothing done, where the walk found too little.
    bool look_led(Slice& slice, uint32_t number, const Ruler& ruler) {
        std::vector<uint32_t> rows;
        Slice led = slice;
        const uint32_t enough = std::min(wanted_, slice.allowed);
        const CodedRuler coded(ruler, slice.codes ? *slice.codes : Both::kNoCodes);
        const bool is_found = slice.codes && slice.codes->leads
                                  ? gather(led, CodedGuide{coded, slice.graph->rows}, enough, rows)
                                  : gather(led, ruler, enough, rows);
        if (!is_found || rows.empty()) return false;
        slice.evaluated += led.evaluated;
        std::vector<double> scores(slice.rows);
        SparseScorer scorer(sparse_, *slice.sparse, slice.first, slice.rows);
        scorer.each_block([&](uint32_t begin, uint32_t end, const double* some, const uint8_t*) {
            std::copy(some, some + (end - begin), scores.begin() + begin);
        });
        std::vector<Hit> heap;
        std::vector<double> leading;
        std::vector<uint8_t> is_seen(slice.rows);
        for (const uint32_t row : rows) {
            leading.push_back(ruler.rank(row));
            offer(heap, Hit{sum_of(leading.back(), scores[row]), number, row});
            is_seen[row] = 1;
        }
        const size_t last = std::min<size_t>(leading.size(), std::max(wanted_, slice.ef / kLeading)) - 1;
        std::nth_element(leading.begin(), leading.begin() + last, leading.end(), std::greater<double>());
        const double most = leading[last];
        Both both(ruler, slice.codes, wanted_);
        const auto offer_exact = [&](uint32_t row, double more) {
            offer(heap, Hit{sum_of(ruler.rank(row), more), number, row});
        };
        // Those that lead by the sparse part come first: the more there are ahead, the fewer have to be looked at.
        for (const uint32_t row : best_of(scores, is_seen, slice.mask)) {
            offer_exact(row, scores[row]);
            is_seen[row] = 1;
        }
        for (uint32_t row = 0; row < slice.rows; ++row) {
            if (is_seen[row] || (slice.mask && !slice.mask[row])) continue;
            if (heap.size() < wanted_ || scores[row] + most >= heap.front().rank) both.rows.push_back(row);
        }
        slice.evaluated += both.rows.size();
        both.look([&](uint32_t row) { return scores[row]; }, offer_exact);
        both.finish(offer_exact);
        slice.found = uint32_t(heap.size());
        hits_.insert(hits_.end(), heap.begin(), heap.end());
        return true;
    }

    // Returns the rows of the best scores among those that were not seen and that the mask allows: as many as are wanted.
    std::vector<uint32_t> best_of(const std::vector<double>& scores, const std::vector<uint8_t>& is_seen,
                                  const uint8_t* mask) const {
        std::vector<uint32_t> rows;
        const auto higher = [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; };
        for (uint32_t row = 0; row < scores.size(); ++row) {
            if (is_seen[row] || (mask && !mask[row])) continue;
            if (rows.size() >= wanted_) {
                if (scores[row] <= scores[rows.front()]) continue;
                std::pop_heap(rows.begin(), rows.end(), higher);
                rows.pop_back();
            }
            rows.push_back(row);
            std::push_heap(rows.begin(), rows.end(), higher);
        }
        return rows;
    }

    // A rank is the sum of both parts. Of a slice that is scanned all rows are looked at. Of one that is walked those
    // that share an index with the query, however near they are; the sparse part of all others is 0, and the walk is
    // for the nearest of these alone.
    void look_at_both(Slice& slice, uint32_t number, const Ruler& ruler) {
        const bool has_lead = slice.plan == kScan && slice.ef && slice.graph && slice.graph->rows == slice.rows;
        if (has_lead && look_led(slice, number, ruler)) return;
        const bool is_walked = slice.plan == kWalk;
        std::vector<uint8_t> others(is_walked ? slice.rows : 0);
        std::vector<Hit> heap;
        const bool is_coded = slice.codes && slice.allowed > 4 * uint64_t(wanted_) + 64;
        Both both(ruler, is_coded ? slice.codes : nullptr, wanted_);
        uint32_t left = 0;
        const auto offer_exact = [&](uint32_t row, double more) {
            offer(heap, Hit{sum_of(ruler.rank(row), more), number, row});
        };
        SparseScorer scorer(sparse_, *slice.sparse, slice.first, slice.rows);
        scorer.each_block([&](uint32_t begin, uint32_t end, const double* scores, const uint8_t* shares) {
            for (uint32_t row = begin; row < end; ++row) {
                if (slice.mask && !slice.mask[row]) continue;
                if (is_walked && !shares[row - begin]) {
                    others[row] = 1;
                    ++left;
                    continue;
                }
                both.rows.push_back(row);
            }
            slice.evaluated += both.rows.size();
            both.look([&](uint32_t row) { return scores[row - begin]; }, offer_exact);
        });
        both.finish(offer_exact);
        slice.found = uint32_t(heap.size());
        hits_.insert(hits_.end(), heap.begin(), heap.end());
        if (!left) return;
        Slice rest = slice;
        rest.mask = others.data();
        rest.allowed = left;
        rest.evaluated = 0;
        walk(rest, number, ruler);
        slice.evaluated += rest.evaluated;
        slice.found += rest.found;
        slice.plan = rest.plan;
    }

    // Rows on their way to an exact rank: by their codes first, where there are any.
    struct Both {
        static constexpr Codes kNoCodes{};
        const Ruler& ruler;
        const CodedRuler coded;
        const bool is_coded;
        Promising promising;
        std::vector<uint32_t> rows;

        Both(const Ruler& ruler, const Codes* codes, uint32_t wanted)
            : ruler(ruler), coded(ruler, codes ? *codes : kNoCodes), is_coded(codes), promising(coded, wanted) {}

        template <typename More, typename Offer>
        void look(More more, Offer offer) {
            if (is_coded)
                each(rows, coded, [&](uint32_t row) { promising.look(row, more(row)); });
            else
                each(rows, ruler, [&](uint32_t row) { offer(row, more(row)); });
            rows.clear();
        }

        template <typename Offer>
        void finish(Offer offer) const {
            promising.each(offer);
        }
    };

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
    // One in so many candidates of a walk, the nearest, are trusted to be all that are as near.
    static constexpr uint32_t kLeading = 4;
    // Rows from which a walk within the allowed ones begins, and how much wider it is than others.
    static constexpr uint64_t kSeeds = 256;
    static constexpr uint32_t kInsideWidth = 3;

    const float* query_;
    const uint32_t dimension_, metric_;
    const SparseQuery sparse_;
    const uint32_t wanted_;
    std::vector<Hit> hits_;
    bool dropped_ = false;
    double dropped_rank_ = 0;
};

}  // namespace freshet
