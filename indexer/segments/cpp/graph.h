// A graph over rows, read in place from mapped memory: links only, the vectors lie in an object of their own.
#pragma once

#include <algorithm>
#include <cstdint>

namespace freshet {

// An unused link.
constexpr uint32_t kNone = 0xFFFFFFFFu;

// Filled by the caller; every pointer stays valid while a call runs. Elements below `rows` are rows of the segment;
// those from `rows` on died before it was written and only lead the way.
struct Graph {
    const uint32_t* links;         // [elements, m0] neighbours at level 0
    const uint32_t* upper_nodes;   // [upper] elements with levels above 0, ascending
    const uint32_t* upper_starts;  // [upper + 1] where their links begin, in units of m
    const uint32_t* upper_links;   // [upper_starts[upper], m] neighbours at levels 1, 2, ...
    uint32_t elements;
    uint32_t rows;
    uint32_t upper;
    uint32_t upper_lists;  // number of lists in upper_links
    uint32_t m0;
    uint32_t m;
    uint32_t entry;
    uint32_t top_level;

    // Position in upper_nodes, or `upper` where the element has no upper level.
    uint32_t find_upper(uint32_t element) const {
        const uint32_t* at = std::lower_bound(upper_nodes, upper_nodes + upper, element);
        return at != upper_nodes + upper && *at == element ? uint32_t(at - upper_nodes) : upper;
    }

    uint32_t level_of(uint32_t element) const {
        const uint32_t at = find_upper(element);
        return at == upper ? 0 : upper_starts[at + 1] - upper_starts[at];
    }

    // Say whether every number in it points inside, so that no walk can leave it.
    bool is_sound() const {
        if (elements == 0 || rows > elements || m0 == 0 || m == 0 || entry >= elements) return false;
        if (upper_starts[0] != 0 || upper_starts[upper] != upper_lists) return false;
        for (uint32_t at = 0; at < upper; ++at) {
            if (upper_nodes[at] >= elements || (at > 0 && upper_nodes[at] <= upper_nodes[at - 1])) return false;
            if (upper_starts[at + 1] <= upper_starts[at] || upper_starts[at + 1] > upper_lists) return false;
        }
        const uint64_t count = uint64_t(elements) * m0;
        uint32_t wrong = 0;
        for (uint64_t at = 0; at < count; ++at) wrong |= (links[at] >= elements) & (links[at] != kNone);
        if (wrong || level_of(entry) != top_level) return false;
        for (uint32_t at = 0; at < upper; ++at)
            for (uint32_t list = upper_starts[at]; list < upper_starts[at + 1]; ++list) {
                const uint32_t level = list - upper_starts[at] + 1;
                for (uint32_t link = 0; link < m; ++link) {
                    const uint32_t to = upper_links[uint64_t(list) * m + link];
                    if (to != kNone && (to >= elements || level_of(to) < level)) return false;
                }
            }
        return true;
    }
};

}  // namespace freshet
