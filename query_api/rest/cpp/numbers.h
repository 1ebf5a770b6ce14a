// JSON numbers to float32, with the rounding of a JSON parser: to the nearest double first, then to float32.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "powers.h"

namespace freshet {

inline bool is_digit(char c) { return uint8_t(c - '0') < 10; }

// Return whether 8 bytes are digits, and their number (first byte = most significant digit).
inline bool eight_digits(const char* at, uint64_t* number) {
    uint64_t v;
    std::memcpy(&v, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    if (((v & 0xF0F0F0F0F0F0F0F0) | (((v + 0x0606060606060606) & 0xF0F0F0F0F0F0F0F0) >> 4)) != 0x3333333333333333)
        return false;
    v -= 0x3030303030303030;
    v = v * 10 + (v >> 8);
    *number = ((v & 0x000000FF000000FF) * 0x000F424000000064 + ((v >> 16) & 0x000000FF000000FF) * 0x0000271000000001) >> 32;
    return true;
}

// The nearest double of digits * 10^power; false where these 64 bits do not decide it.
inline bool nearest(uint64_t digits, int power, double* value) {
    static constexpr double kExact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (digits <= uint64_t(1) << 53 && power >= -22 && power <= 22) {
        // Both are exact doubles, so one operation rounds once.
        *value = power < 0 ? double(digits) / kExact[-power] : double(digits) * kExact[power];
        return true;
    }
    if (digits == 0 || power < kPowerMin || power > kPowerMax) return false;
    const int zeros = __builtin_clzll(digits);
    // The true product lies in [high, high + 2) * 2^64, since the power is cut off by less than one.
    const uint64_t high =
        uint64_t((static_cast<unsigned __int128>(digits << zeros) * kPowers[power - kPowerMin]) >> 64);
    const int shift = high >> 63 ? 11 : 10;
    const uint64_t rest = high & ((uint64_t(1) << shift) - 1), half = uint64_t(1) << (shift - 1);
    if (rest == half || rest == half - 1) return false;
    const uint64_t mantissa = (high >> shift) + (rest > half);
    const uint64_t exponent = uint64_t(log2_of_power(power) - 63 - zeros + 64 + shift + 1023) << 52;
    double scale;
    std::memcpy(&scale, &exponent, 8);
    *value = double(mantissa) * scale;
    return true;
}

// The nearest double of a whole number in JSON's grammar, by the C library; false where it does not read all of it.
inline bool nearest_of_text(const char* begin, const char* end, double* value) {
    char text[512];
    const size_t size = size_t(end - begin);
    if (size >= sizeof text) return false;
    std::memcpy(text, begin, size);
    text[size] = 0;
    char* stop;
    *value = std::strtod(text, &stop);
    // A locale with another decimal point stops early.
    return stop == text + size;
}

// Reads digits at `at`; returns where they end.
inline const char* read_digits(const char* at, const char* end, uint64_t* digits) {
    uint64_t eight;
    while (end - at >= 8 && eight_digits(at, &eight)) {
        *digits = *digits * 100000000 + eight;
        at += 8;
    }
    for (; at < end && is_digit(*at); ++at) *digits = *digits * 10 + uint64_t(*at - '0');
    return at;
}

// Reads one number at `begin`. Returns where it ends, or null where there is none that is finite as float32.
inline const char* read_number(const char* begin, const char* end, float* out) {
    const char* at = begin;
    const bool is_negative = at < end && *at == '-';
    at += is_negative;
    if (at == end || !is_digit(*at)) return nullptr;
    uint64_t digits = 0;  // wraps round beyond 19 of them; then it is not used
    const char* whole = at;
    at = read_digits(at, end, &digits);
    if (*whole == '0' && at - whole > 1) return nullptr;
    int64_t significant = *whole == '0' ? 0 : at - whole;
    int64_t power = 0;
    bool is_integer = true;
    if (at < end && *at == '.') {
        const char* part = ++at;
        if (significant == 0)
            while (at < end && *at == '0') ++at;
        const char* first = at;
        at = read_digits(at, end, &digits);
        if (at == part) return nullptr;
        significant += at - first;
        power = part - at;
        is_integer = false;
    }
    if (at < end && (*at | 0x20) == 'e') {
        ++at;
        const bool is_down = at < end && *at == '-';
        if (at < end && (*at == '-' || *at == '+')) ++at;
        if (at == end || !is_digit(*at)) return nullptr;
        int64_t exponent = 0;
        for (; at < end && is_digit(*at); ++at)
            if (exponent < 100000) exponent = exponent * 10 + (*at - '0');
        power += is_down ? -exponent : exponent;
        is_integer = false;
    }
    double value;
    if (significant == 0)
        value = 0;
    else if (significant > 19 || power < kPowerMin || power > kPowerMax || !nearest(digits, int(power), &value)) {
        if (!nearest_of_text(whole, at, &value)) return nullptr;
    }
    // The integer -0 has no sign.
    *out = float(is_negative && !(is_integer && significant == 0) ? -value : value);
    return std::isfinite(*out) ? at : nullptr;
}

}  // namespace freshet
