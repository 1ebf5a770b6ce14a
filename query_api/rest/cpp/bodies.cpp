// Takes the vectors out of a JSON body: a matrix, and the same body with a row number in the place of each vector.
//
// What it does not understand is left to the JSON parser, which says what is wrong. It replaces values by values, so the
// smaller body is valid JSON where the whole one is and nowhere else; it is parsed by the same parser.
// query_api/rest/bodies.py calls it. Nothing is read outside of [body, body + size), nothing is thrown.
#include <cstdint>
#include <cstring>

#include "numbers.h"

namespace {

using freshet::read_number;

struct Task {
    const char* body;
    uint64_t size;
    float* matrix;  // [rows_max, dimension]
    char* rest;     // [size + kPlaceBytes * rows_max]
    uint64_t rest_size;
    uint32_t dimension;
    uint32_t rows_max;
    uint32_t rows;
};

// What a row number may take more than the list that it replaces.
constexpr uint64_t kPlaceBytes = 12;

class Lifter {
 public:
    explicit Lifter(Task& task)
        : task_(task), at_(task.body), end_(task.body + task.size), kept_(task.body), rest_(task.rest) {}

    // `list` names the list of objects that hold vectors, null where the body itself holds one; `field` is the
    // vector's name. False: not understood.
    bool run(const char* list, const char* field) {
        list_ = list;
        field_ = field;
        blank();
        if (!object(list == nullptr)) return false;
        blank();
        if (at_ != end_) return false;
        keep(at_);
        task_.rest_size = uint64_t(rest_ - task_.rest);
        return true;
    }

 private:
    void blank() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }

    bool take(char c) {
        if (at_ == end_ || *at_ != c) return false;
        ++at_;
        return true;
    }

    // Copies what comes before `until` and was not copied yet.
    void keep(const char* until) {
        std::memcpy(rest_, kept_, size_t(until - kept_));
        rest_ += until - kept_;
    }

    // Members of an object; where `is_holder`, a member called `field` is a vector.
    bool object(bool is_holder) {
        if (!take('{')) return false;
        blank();
        if (take('}')) return true;
        do {
            blank();
            const char* name = at_ + 1;
            bool is_plain = true;
            if (!string(&is_plain)) return false;
            // A name with escapes may be one of ours in another spelling.
            if (!is_plain) return false;
            const size_t length = size_t(at_ - 1 - name);
            blank();
            if (!take(':')) return false;
            blank();
            if (is_holder && is_named(name, length, field_)) {
                if (!vector()) return false;
            } else if (!is_holder && is_named(name, length, list_)) {
                if (!holders()) return false;
            } else if (!skip()) {
                return false;
            }
            blank();
        } while (take(','));
        return take('}');
    }

    bool holders() {
        if (!take('[')) return false;
        blank();
        if (take(']')) return true;
        do {
            blank();
            if (!object(true)) return false;
            blank();
        } while (take(','));
        return take(']');
    }

    bool vector() {
        if (task_.rows == task_.rows_max) return false;
        keep(at_);
        if (!take('[')) return false;
        float* out = task_.matrix + uint64_t(task_.rows) * task_.dimension;
        for (uint32_t number = 0; number < task_.dimension; ++number) {
            if (number && !take(',')) return false;
            blank();
            at_ = read_number(at_, end_, out + number);
            if (!at_) return false;
            blank();
        }
        if (!take(']')) return false;
        kept_ = at_;
        place(task_.rows++);
        return true;
    }

    // A number between blanks, so that it can never join what stands beside it.
    void place(uint32_t row) {
        char digits[10];
        int count = 0;
        do digits[count++] = char('0' + row % 10);
        while (row /= 10);
        *rest_++ = ' ';
        while (count) *rest_++ = digits[--count];
        *rest_++ = ' ';
    }

    bool string(bool* is_plain) {
        if (!take('"')) return false;
        while (at_ < end_ && *at_ != '"') {
            if (*at_ == '\\') {
                *is_plain = false;
                if (++at_ == end_) return false;
            }
            ++at_;
        }
        return take('"');
    }

    // Passes over a value of any kind; whether it is sound is for the parser to say.
    bool skip() {
        uint64_t depth = 0;
        bool is_plain;
        while (at_ < end_) {
            switch (*at_) {
                case '"':
                    if (!string(&is_plain)) return false;
                    break;
                case '{':
                case '[':
                    ++depth;
                    ++at_;
                    break;
                case '}':
                case ']':
                    if (depth == 0) return true;
                    --depth;
                    ++at_;
                    break;
                case ',':
                    if (depth == 0) return true;
                    ++at_;
                    break;
                default:
                    ++at_;
            }
        }
        return false;
    }

    static bool is_named(const char* name, size_t length, const char* wanted) {
        return std::strlen(wanted) == length && std::memcmp(name, wanted, length) == 0;
    }

    Task& task_;
    const char* at_;
    const char* const end_;
    const char* kept_;  // what comes from here on was not copied yet
    char* rest_;
    const char* list_ = nullptr;
    const char* field_ = nullptr;
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Raised with every change of a signature or a structure here.
uint32_t freshet_bodies_interface() { return 1; }

// Lift `vectors[].values`. Returns 1 where the body was understood: every vector was a list of `dimension` numbers.
int32_t freshet_lift_upsert(Task* task) { return Lifter(*task).run("vectors", "values"); }

// Lift `vector`.
int32_t freshet_lift_query(Task* task) { return Lifter(*task).run(nullptr, "vector"); }

}  // extern "C"
#pragma GCC visibility pop
