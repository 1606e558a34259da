/* A process that preloads this library sees a wall clock that is CLOCK_BEHIND_S seconds behind, or
 * one that stands at what the file CLOCK_FILE holds: a number of microseconds in eight bytes, which
 * may be written anew at any time. The monotonic clock stays as it is. Debian's faketime does the same for most programs, but not
 * for redis-server: its allocator (jemalloc) asks for the time before faketime is ready. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long behind_s(void) {
    static long seconds = -1;
    if (seconds < 0) {
        const char *text = getenv("CLOCK_BEHIND_S");
        seconds = text ? atol(text) : 0;
    }
    return seconds;
}

/* What the clock is to show; NULL: that of the machine. */
static const volatile int64_t *stands_us(void) {
    static const volatile int64_t *shown;
    static int is_known;
    if (!is_known) {
        const char *path = getenv("CLOCK_FILE");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        is_known = 1;
        if (file >= 0) {
            void *mapped = mmap(NULL, sizeof *shown, PROT_READ, MAP_SHARED, file, 0);
            shown = mapped == MAP_FAILED ? NULL : mapped;
            close(file);
        }
    }
    return shown;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        if (stands_us()) {
            int64_t us = *stands_us();
            now->tv_sec = us / 1000000;
            now->tv_nsec = us % 1000000 * 1000;
        } else {
            now->tv_sec -= behind_s();
        }
    }
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) {
        return -1;
    }
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) {
        *now = exact.tv_sec;
    }
    return exact.tv_sec;
}
