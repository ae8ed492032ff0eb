/* Work that threads share, some of which may be missing.

   All threads of a crew run the same code: phase after phase, each made of units. Whoever is there takes the units that are
   left, and nobody is waited for who has not begun one. So a processor that turns to a page or to another program takes only
   its own part of the work away. For that, all but the first thread offer theirs now and then while they hold no unit. */

#include <omp.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>

#define MAX_THREADS 64 /* of a crew */
#define OFFER 300000   /* nanoseconds from one offer to the next at the least */

static inline int threads(void) { return omp_get_max_threads() < MAX_THREADS ? omp_get_max_threads() : MAX_THREADS; }

struct count { /* has a cache line of its own */
    int64_t value, rest[7];
};

/* One thread of a crew. Of each phase there are all + 1 counts, which begin as 0: of units that are done, and of those that
   have been taken of each thread's part. */
struct member {
    struct count *counts;
    int all, me, holds_one;
    int64_t offered; /* when, in nanoseconds */
};

static inline int64_t value_of(const struct count *c) { return __atomic_load_n(&c->value, __ATOMIC_ACQUIRE); }
static inline int64_t add_to(struct count *c) { return __atomic_fetch_add(&c->value, 1, __ATOMIC_ACQ_REL); }

static inline int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void offer_processor(struct member *m) {
    if (m->me == 0 || nanoseconds() - m->offered < OFFER) return;
    sched_yield();
    m->offered = nanoseconds();
}

static inline void spin(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

/* The next unit of the phase, or -1 when all are done, and with them the phase. A thread does its own part in order, so that
   it knows what it reads next, and then what is left of others'. */
static int64_t take(struct member *m, int64_t units) {
    struct count *done = m->counts, *taken = m->counts + 1;
    if (m->holds_one) add_to(done), m->holds_one = 0;
    for (; value_of(done) < units; spin()) {
        offer_processor(m);
        for (int k = 0; k < m->all; k++) {
            int whose = (m->me + k) % m->all;
            int64_t begin = units * whose / m->all, size = units * (whose + 1) / m->all - begin, unit;
            if (value_of(taken + whose) < size && (unit = add_to(taken + whose)) < size) {
                m->holds_one = 1;
                return begin + unit;
            }
        }
    }
    m->counts += m->all + 1;
    return -1;
}

/* For every unit that falls to this thread; all are done afterwards. */
#define EACH(unit, units, member) for (int64_t unit; (unit = take(member, units)) >= 0;)
