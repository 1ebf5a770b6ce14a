// Threads that search while their caller does something else. Whoever waits is told through a pipe.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "search.h"

namespace freshet {

// A search and its result. Everything it points to stays alive and untouched until its ticket was taken.
struct Job {
    Slice* slices;
    const float* query;  // null where the query is sparse alone
    const uint32_t* sparse_indices;
    const float* sparse_values;
    Hit* hits;
    uint64_t ticket;
    uint32_t count;
    uint32_t dimension;
    uint32_t sparse_count;
    uint32_t metric;
    uint32_t wanted;
    uint32_t room;
    // Filled in by the search.
    uint32_t found;
    uint32_t tied;
    int32_t code;
};

class Pool {
 public:
    // `carry_out` runs a job and throws nothing. `pipe` gets a byte when there is something to take after there was not.
    Pool(uint32_t threads, int pipe, void (*carry_out)(Job*)) : pipe_(pipe), carry_out_(carry_out) {
        for (uint32_t at = 0; at < threads; ++at) threads_.emplace_back([this] { work(); });
    }

    // Finishes what was submitted.
    ~Pool() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            is_ending_ = true;
        }
        changed_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

    void submit(Job* job) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            waiting_.push_back(job);
        }
        changed_.notify_one();
    }

    // Hands out up to `room` tickets of jobs that are done.
    uint32_t take(uint64_t* tickets, uint32_t room) {
        const std::lock_guard<std::mutex> lock(mutex_);
        uint32_t count = 0;
        for (; count < room && !done_.empty(); ++count) {
            tickets[count] = done_.front()->ticket;
            done_.pop_front();
        }
        return count;
    }

 private:
    void work() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return is_ending_ || !waiting_.empty(); });
            if (waiting_.empty()) return;
            Job* job = waiting_.front();
            waiting_.pop_front();
            lock.unlock();
            carry_out_(job);
            lock.lock();
            done_.push_back(job);
            if (done_.size() == 1) {
                // A pipe that is full has news in it already.
                const ssize_t written = ::write(pipe_, "", 1);
                static_cast<void>(written);
            }
        }
    }

    const int pipe_;
    void (*const carry_out_)(Job*);
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Job*> waiting_, done_;
    bool is_ending_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace freshet
