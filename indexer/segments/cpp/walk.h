// Walks over a graph: Malkov and Yashunin (arXiv 1603.09320, algorithms 2 and 5) over links in place, with a mask.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "distance.h"
#include "graph.h"

namespace freshet {

struct Near {
    float key;
    uint32_t element;
    bool operator<(const Near& other) const { return key < other.key; }
};

struct Nearest {  // for heaps with the nearest on top
    bool operator()(const Near& a, const Near& b) const { return b.key < a.key; }
};

// What a thread needs to walk, kept between walks.
struct Scratch {
    std::vector<uint32_t> seen;
    uint32_t round = 0;
    std::vector<Near> open, best;
    std::vector<uint32_t> wave;

    void begin(uint32_t elements) {
        if (seen.size() < elements) seen.resize(elements, 0);
        if (++round == 0) {
            std::fill(seen.begin(), seen.end(), 0);
            round = 1;
        }
        open.clear();
        best.clear();
    }

    bool visit(uint32_t element) {
        if (seen[element] == round) return false;
        seen[element] = round;
        return true;
    }

    static Scratch& own() {
        static thread_local Scratch scratch;
        return scratch;
    }
};

// `Guide` has the keys of elements: `Ruler` or `CodedGuide`.
template <typename Guide>
class Walk {
 public:
    // `mask` [rows] says which rows may be answers, null = all; elements beyond the rows never are.
    // It looks at about `budget` rows at most, and gives up early where a smaller share of them than `share_min` may be
    // answers: then those lie elsewhere, behind rows that all lead the way.
    Walk(const Graph& graph, const Guide& guide, const uint8_t* mask, uint64_t ef, uint64_t budget, double share_min = 0)
        : graph_(graph),
          guide_(guide),
          mask_(mask),
          ef_(ef),
          budget_(budget),
          share_min_(share_min),
          scratch_(Scratch::own()) {
        scratch_.begin(graph.elements);
    }

    uint64_t evaluated() const { return evaluated_; }

    // Return the `ef` nearest allowed rows that the walk found, in no order. Every element leads the way.
    const std::vector<Near>& run() {
        const Near start = descend();
        scratch_.visit(start.element);
        offer(start);
        return go();
    }

    // Begin at `seeds` instead, which may all be answers, and go only where others are.
    const std::vector<Near>& run_inside(const std::vector<uint32_t>& seeds) {
        is_inside_ = true;
        scratch_.wave.clear();
        for (const uint32_t seed : seeds)
            if (scratch_.visit(seed)) scratch_.wave.push_back(seed);
        score_wave();
        return go();
    }

    // Say whether it ended by itself, not because it was given up.
    bool is_complete() const { return is_complete_; }

 private:
    const std::vector<Near>& go() {
        while (const Near* next = nearest_open()) {
            if (evaluated_ > budget_ || (evaluated_ > kTried && double(allowed_) < share_min_ * double(evaluated_))) {
                is_complete_ = false;
                break;
            }
            const uint32_t* links = graph_.links + uint64_t(next->element) * graph_.m0;
            pop_open();
            scratch_.wave.clear();
            for (uint32_t at = 0; at < graph_.m0 && links[at] != kNone; ++at) {
                const bool leads_on = !is_inside_ || allowed(links[at]);
                if (leads_on && scratch_.visit(links[at])) scratch_.wave.push_back(links[at]);
            }
            score_wave();
        }
        return scratch_.best;
    }

    bool allowed(uint32_t element) const { return element < graph_.rows && (!mask_ || mask_[element]); }

    Near descend() {
        Near at{guide_.key(graph_.entry), graph_.entry};
        ++evaluated_;
        for (uint32_t level = graph_.top_level; level > 0; --level)
            for (bool moved = true; moved;) {
                moved = false;
                const uint32_t place = graph_.find_upper(at.element);
                const uint32_t* links =
                    graph_.upper_links + uint64_t(graph_.upper_starts[place] + level - 1) * graph_.m;
                for (uint32_t link = 0; link < graph_.m && links[link] != kNone; ++link)
                    guide_.prefetch(links[link]);
                for (uint32_t link = 0; link < graph_.m && links[link] != kNone; ++link) {
                    const float key = guide_.key(links[link]);
                    ++evaluated_;
                    if (key < at.key) {
                        at = Near{key, links[link]};
                        moved = true;
                    }
                }
            }
        return at;
    }

    void score_wave() {
        constexpr size_t kAhead = 8;
        const std::vector<uint32_t>& wave = scratch_.wave;
        for (size_t at = 0; at < wave.size() && at < kAhead; ++at) guide_.prefetch(wave[at]);
        for (size_t at = 0; at < wave.size(); ++at) {
            if (at + kAhead < wave.size()) guide_.prefetch(wave[at + kAhead]);
            offer(Near{guide_.key(wave[at]), wave[at]});
        }
        evaluated_ += wave.size();
    }

    void offer(const Near& near) {
        std::vector<Near>& best = scratch_.best;
        allowed_ += allowed(near.element);
        const bool full = best.size() >= ef_;
        if (full && !(near.key < best.front().key)) return;
        scratch_.open.push_back(near);
        std::push_heap(scratch_.open.begin(), scratch_.open.end(), Nearest());
        __builtin_prefetch(graph_.links + uint64_t(near.element) * graph_.m0);
        if (!allowed(near.element)) return;
        if (full) {
            std::pop_heap(best.begin(), best.end());
            best.back() = near;
        } else {
            best.push_back(near);
        }
        std::push_heap(best.begin(), best.end());
    }

    const Near* nearest_open() const {
        const std::vector<Near>&open = scratch_.open, &best = scratch_.best;
        if (open.empty() || (best.size() >= ef_ && best.front().key < open.front().key)) return nullptr;
        return &open.front();
    }

    void pop_open() {
        std::pop_heap(scratch_.open.begin(), scratch_.open.end(), Nearest());
        scratch_.open.pop_back();
    }

    // Rows looked at before it can be known that the answers lie elsewhere.
    static constexpr uint64_t kTried = 400;

    const Graph& graph_;
    const Guide& guide_;
    const uint8_t* mask_;
    const size_t ef_;
    const uint64_t budget_;
    const double share_min_;
    Scratch& scratch_;
    uint64_t evaluated_ = 0, allowed_ = 0;
    bool is_complete_ = true, is_inside_ = false;
};

}  // namespace freshet
