/* Records every change to one directory tree, below the program under test, for tests/crash/powerloss.py to replay.
 *
 * Preloaded into each process of a test (LD_PRELOAD). POWERLOSS_DIR is the tree (a real path), POWERLOSS_LOG the record.
 * A record is written before its operation and corrected afterwards where the operation failed, all under one lock shared
 * by the processes, so the order of the record is the order of the changes, and a process killed between the two looks
 * like one killed an instant later. A sync is two records: it covers what was recorded before its begin, once it ended.
 *
 * Seen: open, creat, fopen, write*, pwrite*, truncate, fallocate, sendfile, copy_file_range, link*, rename*, unlink*,
 * mkdir*, rmdir, fsync, fdatasync, syncfs, with their 64-bit and fortified names. sync_file_range promises nothing and is not
 * a sync. stdio writes inside the C library cannot be seen one by one: the file's contents are recorded at fclose and fsync.
 * A shared writable mapping is recorded as such (SQLite's -shm apart) so that the replay can refuse to judge it.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS_MAX 65536
#define UNKNOWN 0
#define IGNORED 1
#define WATCHED 2
#define OPAQUE 4 /* written through stdio */
#define SYNCED 8 /* opened O_SYNC or O_DSYNC */

/* The first page of <log>.lock; powerloss.py reads `size` and `seq`, which stand first. */
struct shared {
    uint64_t size;
    uint64_t seq;
    uint64_t ready;
    pthread_mutex_t mutex;
};

/* One record: this header, then path, second path, data. powerloss.py knows the same layout. */
struct header {
    uint32_t magic, kind;
    uint64_t seq, inode;
    int64_t a, b;
    uint32_t path_bytes, second_bytes;
    uint64_t data_bytes;
};

static struct shared *state;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_bytes;
static unsigned char fds[FDS_MAX];
static uint64_t inodes[FDS_MAX];
static FILE *(*next_fopen)(const char *, const char *);
static FILE *(*next_fdopen)(int, const char *);
static int (*next_fclose)(FILE *);

static void broken(const char *what) {
    char text[160];
    int n = snprintf(text, sizeof text, "powerloss recorder: %s: errno %d\n", what, errno);
    syscall(SYS_write, 2, text, n);
    _exit(97);
}

static int keep_high(int fd) {
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 500); /* out of the way of programs that count on low numbers */
    if (high < 0) return fd;
    syscall(SYS_close, fd);
    return high;
}

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("POWERLOSS_DIR"), *path = getenv("POWERLOSS_LOG");
    char lock_path[PATH_MAX];
    next_fopen = dlsym(RTLD_NEXT, "fopen");
    next_fdopen = dlsym(RTLD_NEXT, "fdopen");
    next_fclose = dlsym(RTLD_NEXT, "fclose");
    if (!dir || !path || state) return;
    snprintf(root, sizeof root, "%s", dir);
    root_bytes = strlen(root);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    int lock_fd = syscall(SYS_openat, AT_FDCWD, lock_path, O_RDWR | O_CLOEXEC);
    log_fd = keep_high(syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC));
    if (lock_fd < 0 || log_fd < 0) broken("cannot open the log");
    struct shared *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, lock_fd, 0);
    if (s == MAP_FAILED) broken("cannot map the lock");
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    fcntl(lock_fd, F_SETLKW, &whole);
    if (!s->ready) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&s->mutex, &attributes);
        s->ready = 1;
    }
    syscall(SYS_close, lock_fd);
    state = s;
}

static void lock(void) {
    int rc = pthread_mutex_lock(&state->mutex);
    if (rc == EOWNERDEAD) pthread_mutex_consistent(&state->mutex); /* a half-written record lies beyond `size` */
    else if (rc) broken("lock");
}

static void unlock(void) { pthread_mutex_unlock(&state->mutex); }

/* Append one record; the lock is held. Returns its sequence number. errno is kept. */
static uint64_t put(char kind, uint64_t inode, int64_t a, int64_t b, const char *path, const char *second,
                    const struct iovec *data, int pieces) {
    int kept = errno;
    struct header h = {0x534c5750, (uint32_t)kind, state->seq + 1, inode, a, b, 0, 0, 0};
    struct iovec parts[3] = {{&h, sizeof h}, {(void *)path, 0}, {(void *)second, 0}};
    h.path_bytes = parts[1].iov_len = path ? strlen(path) : 0;
    h.second_bytes = parts[2].iov_len = second ? strlen(second) : 0;
    for (int i = 0; i < pieces; i++) h.data_bytes += data[i].iov_len;
    int64_t at = state->size;
    for (int i = 0; i < 3 + pieces; i++) {
        struct iovec piece = i < 3 ? parts[i] : data[i - 3];
        while (piece.iov_len) {
            ssize_t n = syscall(SYS_pwrite64, log_fd, piece.iov_base, piece.iov_len, at);
            if (n <= 0) broken("cannot write the log");
            piece.iov_base = (char *)piece.iov_base + n;
            piece.iov_len -= n;
            at += n;
        }
    }
    state->seq = h.seq;
    __atomic_store_n(&state->size, at, __ATOMIC_RELEASE);
    errno = kept;
    return h.seq;
}

/* What record `seq` came to: -1 = it failed, else how many bytes were written. */
static void settle(uint64_t seq, int64_t result) { put('R', 0, (int64_t)seq, result, NULL, NULL, NULL, 0); }

/* Absolute path without . and .. (text only); true if it lies in the tree. */
static int resolve(int dirfd, const char *path, char out[PATH_MAX]) {
    char joined[2 * PATH_MAX];
    if (!state || !path) return 0;
    if (path[0] == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char base[PATH_MAX], link[64];
        if (dirfd == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        int kept = errno;
        ssize_t n = readlink(link, base, sizeof base - 1);
        errno = kept;
        if (n < 0) return 0;
        base[n] = 0;
        snprintf(joined, sizeof joined, "%s/%s", base, path);
    }
    size_t used = 0;
    for (char *part = joined; *part;) {
        while (*part == '/') part++;
        size_t n = strcspn(part, "/");
        if (n == 2 && !memcmp(part, "..", 2)) {
            while (used && out[--used] != '/') {
            }
        } else if (n && !(n == 1 && *part == '.') && used + n + 2 < PATH_MAX) {
            out[used++] = '/';
            memcpy(out + used, part, n);
            used += n;
        }
        part += n;
    }
    out[used] = 0;
    return !strncmp(out, root, root_bytes) && (out[root_bytes] == '/' || !out[root_bytes]);
}

/* Path of an open file; true if it lies in the tree. */
static int path_of(int fd, char out[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return !strncmp(out, root, root_bytes) && (out[root_bytes] == '/' || !out[root_bytes]);
}

static void forget(int fd) {
    if (fd >= 0 && fd < FDS_MAX) fds[fd] = UNKNOWN;
}

/* Note an open file of the tree: inode `b`. The lock is held. */
static void bind_file(int fd, const char *path, int flags) {
    struct stat st;
    if (fd < 0 || fd >= FDS_MAX || syscall(SYS_fstat, fd, &st)) return;
    inodes[fd] = st.st_ino;
    fds[fd] = S_ISREG(st.st_mode) ? WATCHED | (flags & (O_SYNC | O_DSYNC) ? SYNCED : 0) : IGNORED;
    if (S_ISREG(st.st_mode)) put('B', st.st_ino, st.st_size, 0, path, NULL, NULL, 0);
}

/* State of a descriptor that is about to be written or synced: 0 unless it is a file of the tree. */
static int watched(int fd, uint64_t *inode) {
    struct stat st;
    char path[PATH_MAX];
    if (!state || fd < 0 || fd >= FDS_MAX || fds[fd] == IGNORED) return 0;
    int kept = errno;
    if (syscall(SYS_fstat, fd, &st)) return errno = kept, 0;
    if (fds[fd] == UNKNOWN || inodes[fd] != st.st_ino) {
        if (!S_ISREG(st.st_mode) || !st.st_nlink || !path_of(fd, path)) {
            fds[fd] = S_ISREG(st.st_mode) ? UNKNOWN : IGNORED;
            return errno = kept, 0;
        }
        lock();
        bind_file(fd, path, fcntl(fd, F_GETFL));
        unlock();
    }
    errno = kept;
    *inode = st.st_ino;
    return fds[fd] & WATCHED ? fds[fd] : 0;
}

/* Record a range as it now stands in the file; the lock is held. */
static void put_range(int fd, uint64_t inode, char kind, off_t from, off_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int kept = errno, reader = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    char *bytes = malloc(size ? size : 1);
    ssize_t n = reader < 0 || !bytes ? -1 : pread(reader, bytes, size, from);
    if (n >= 0) put(kind, inode, from, 0, NULL, NULL, &(struct iovec){bytes, n}, 1);
    free(bytes);
    if (reader >= 0) syscall(SYS_close, reader);
    errno = kept;
}

static void put_whole(int fd, uint64_t inode) {
    struct stat st;
    if (!syscall(SYS_fstat, fd, &st)) put_range(fd, inode, 'A', 0, st.st_size);
}

/* ---- open and close ---- */

static int do_open(int dirfd, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!(flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) || !resolve(dirfd, path, full)) {
        int fd = syscall(SYS_openat, dirfd, path, flags, mode);
        forget(fd);
        return fd;
    }
    lock();
    int named = (flags & O_TMPFILE) != O_TMPFILE;
    uint64_t seq = named ? put('C', 0, flags & (O_CREAT | O_EXCL | O_TRUNC), 0, full, NULL, NULL, 0) : 0;
    int fd = syscall(SYS_openat, dirfd, path, flags, mode);
    if (fd >= 0) bind_file(fd, named ? full : "", flags);
    else if (seq) settle(seq, -1);
    unlock();
    return fd;
}

#define OPEN_MODE(flags)                          \
    mode_t mode = 0;                              \
    if ((flags) & (O_CREAT | O_TMPFILE)) {        \
        va_list rest;                             \
        va_start(rest, flags);                    \
        mode = va_arg(rest, mode_t);              \
        va_end(rest);                             \
    }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { OPEN_MODE(flags) return do_open(AT_FDCWD, path, flags, mode); }
#define OPENAT(name) \
    int name(int dirfd, const char *path, int flags, ...) { OPEN_MODE(flags) return do_open(dirfd, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __openat_2(int dirfd, const char *path, int flags) { return do_open(dirfd, path, flags, 0); }
int __openat64_2(int dirfd, const char *path, int flags) { return do_open(dirfd, path, flags, 0); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) { return forget(fd), syscall(SYS_close, fd); }
int dup2(int from, int to) { return forget(to), from == to ? to : syscall(SYS_dup3, from, to, 0); }
int dup3(int from, int to, int flags) { return forget(to), syscall(SYS_dup3, from, to, flags); }

FILE *fopen(const char *path, const char *mode) {
    char full[PATH_MAX];
    if (!strpbrk(mode, "wa+") || !resolve(AT_FDCWD, path, full)) return next_fopen(path, mode);
    lock();
    int flags = *mode == 'w' ? O_CREAT | O_TRUNC : *mode == 'a' ? O_CREAT : 0;
    uint64_t seq = put('C', 0, flags, 0, full, NULL, NULL, 0);
    FILE *file = next_fopen(path, mode);
    if (!file) settle(seq, -1);
    else bind_file(fileno(file), full, 0), fds[fileno(file)] |= OPAQUE;
    unlock();
    return file;
}
FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

FILE *fdopen(int fd, const char *mode) {
    uint64_t inode;
    FILE *file = next_fdopen(fd, mode);
    if (file && strpbrk(mode, "wa+") && watched(fd, &inode)) fds[fd] |= OPAQUE;
    return file;
}

int fclose(FILE *file) {
    uint64_t inode;
    int fd = fileno(file);
    if (watched(fd, &inode) & OPAQUE) {
        fflush(file);
        lock();
        put_whole(fd, inode);
        unlock();
    }
    forget(fd);
    return next_fclose(file);
}

/* ---- contents ---- */

static ssize_t do_write(int fd, const struct iovec *data, int pieces, off_t at, int flags) {
    uint64_t inode, size = 0;
    int how = watched(fd, &inode);
    off_t given = at;
    if (how) {
        lock();
        int modes = fcntl(fd, F_GETFL);
        struct stat st;
        if (modes & O_APPEND) at = syscall(SYS_fstat, fd, &st) ? 0 : st.st_size;
        else if (at < 0) at = lseek(fd, 0, SEEK_CUR);
        for (int i = 0; i < pieces; i++) size += data[i].iov_len;
    }
    uint64_t seq = how ? put('W', inode, at, 0, NULL, NULL, data, pieces) : 0;
    ssize_t n;
    if (given < 0) n = pieces == 1 ? syscall(SYS_write, fd, data->iov_base, data->iov_len) : syscall(SYS_writev, fd, data, pieces);
    else if (pieces == 1 && !flags) n = syscall(SYS_pwrite64, fd, data->iov_base, data->iov_len, given);
    else n = syscall(SYS_pwritev2, fd, data, pieces, (long)given, 0L, flags);
    if (!how) return n;
    if (n != (ssize_t)size) settle(seq, n);
    if (how & SYNCED || flags & (RWF_SYNC | RWF_DSYNC)) {
        uint64_t sync = put('F', inode, 0, 0, NULL, NULL, NULL, 0);
        put('E', inode, (int64_t)sync, 0, NULL, NULL, NULL, 0);
    }
    unlock();
    return n;
}

ssize_t write(int fd, const void *data, size_t size) { return do_write(fd, &(struct iovec){(void *)data, size}, 1, -1, 0); }
ssize_t writev(int fd, const struct iovec *data, int pieces) { return do_write(fd, data, pieces, -1, 0); }
#define PWRITE(name)                                                        \
    ssize_t name(int fd, const void *data, size_t size, off_t at) {         \
        if (at < 0) return errno = EINVAL, -1;                              \
        return do_write(fd, &(struct iovec){(void *)data, size}, 1, at, 0); \
    }
#define PWRITEV(name) \
    ssize_t name(int fd, const struct iovec *data, int n, off_t at) { return do_write(fd, data, n, at, 0); }
#define PWRITEV2(name) \
    ssize_t name(int fd, const struct iovec *data, int n, off_t at, int flags) { return do_write(fd, data, n, at, flags); }
PWRITE(pwrite) PWRITE(pwrite64) PWRITEV(pwritev) PWRITEV(pwritev64) PWRITEV2(pwritev2) PWRITEV2(pwritev64v2)

static ssize_t copied(int fd, uint64_t inode, ssize_t n, off_t from) {
    if (n > 0) put_range(fd, inode, 'W', from, n);
    unlock();
    return n;
}

ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    uint64_t inode;
    if (!watched(to, &inode)) return syscall(SYS_sendfile, to, from, at, size);
    lock();
    off_t start = lseek(to, 0, SEEK_CUR);
    return copied(to, inode, syscall(SYS_sendfile, to, from, at, size), start);
}
ssize_t sendfile64(int to, int from, off_t *at, size_t size) { return sendfile(to, from, at, size); }

ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t size, unsigned flags) {
    uint64_t inode;
    if (!watched(to, &inode)) return syscall(SYS_copy_file_range, from, from_at, to, to_at, size, flags);
    lock();
    off_t start = to_at ? *to_at : lseek(to, 0, SEEK_CUR);
    return copied(to, inode, syscall(SYS_copy_file_range, from, from_at, to, to_at, size, flags), start);
}

int ftruncate(int fd, off_t size) {
    uint64_t inode;
    if (!watched(fd, &inode)) return syscall(SYS_ftruncate, fd, size);
    lock();
    uint64_t seq = put('T', inode, size, 0, NULL, NULL, NULL, 0);
    int rc = syscall(SYS_ftruncate, fd, size);
    if (rc) settle(seq, -1);
    unlock();
    return rc;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int truncate(const char *path, off_t size) {
    int fd = do_open(AT_FDCWD, path, O_WRONLY, 0), rc = fd < 0 ? -1 : ftruncate(fd, size), kept = errno;
    if (fd >= 0) close(fd);
    return errno = kept, rc;
}
int truncate64(const char *path, off_t size) { return truncate(path, size); }

int fallocate(int fd, int mode, off_t from, off_t size) {
    uint64_t inode;
    if (!watched(fd, &inode)) return syscall(SYS_fallocate, fd, mode, from, size);
    lock();
    int rc = syscall(SYS_fallocate, fd, mode, from, size);
    if (!rc) put_whole(fd, inode);
    unlock();
    return rc;
}
int fallocate64(int fd, int mode, off_t from, off_t size) { return fallocate(fd, mode, from, size); }
int posix_fallocate(int fd, off_t from, off_t size) { return fallocate(fd, 0, from, size) ? errno : 0; }
int posix_fallocate64(int fd, off_t from, off_t size) { return posix_fallocate(fd, from, size); }

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t at) {
    char path[PATH_MAX];
    if (state && fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && path_of(fd, path)) {
        size_t n = strlen(path);
        if (n < 4 || strcmp(path + n - 4, "-shm")) {
            lock();
            put('M', 0, 0, 0, path, NULL, NULL, 0);
            unlock();
        }
    }
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, at);
}
void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t at) {
    return mmap(address, size, protection, flags, fd, at);
}

/* ---- names ---- */

#define NAMED(kind, inode, a, path, second, call)                          \
    lock();                                                                \
    uint64_t seq = put(kind, inode, a, 0, path, second, NULL, 0);          \
    int rc = (call);                                                       \
    if (rc) settle(seq, -1);                                               \
    unlock();                                                              \
    return rc;

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    char source[PATH_MAX] = "", target[PATH_MAX];
    struct stat st = {0};
    if (!resolve(to_fd, to, target)) return syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    int known = resolve(from_fd, from, source), kept = errno;
    fstatat(from_fd, from, &st, flags & AT_EMPTY_PATH ? AT_EMPTY_PATH : flags & AT_SYMLINK_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW);
    errno = kept;
    NAMED('L', st.st_ino, 0, known ? source : "", target, syscall(SYS_linkat, from_fd, from, to_fd, to, flags))
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int from_in = resolve(from_fd, from, source), to_in = resolve(to_fd, to, target);
    if (!from_in && !to_in) return syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    if (!from_in || !to_in) return errno = EXDEV, -1; /* as between two file systems: the program copies instead */
    NAMED('N', 0, flags, source, target, syscall(SYS_renameat2, from_fd, from, to_fd, to, flags))
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) { return renameat2(from_fd, from, to_fd, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dirfd, const char *path, int flags) {
    char full[PATH_MAX];
    if (!resolve(dirfd, path, full)) return syscall(SYS_unlinkat, dirfd, path, flags);
    NAMED('U', 0, 0, full, NULL, syscall(SYS_unlinkat, dirfd, path, flags))
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) { int rc = unlink(path); return rc && errno == EISDIR ? rmdir(path) : rc; }

int mkdirat(int dirfd, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!resolve(dirfd, path, full)) return syscall(SYS_mkdirat, dirfd, path, mode);
    NAMED('D', 0, 0, full, NULL, syscall(SYS_mkdirat, dirfd, path, mode))
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ---- syncs ---- */

static int do_sync(int fd, long call) {
    uint64_t inode = 0;
    char path[PATH_MAX] = "";
    struct stat st;
    int how = watched(fd, &inode), is_dir = 0, kept = errno;
    if (!how && state && !syscall(SYS_fstat, fd, &st)) is_dir = S_ISDIR(st.st_mode) && path_of(fd, path);
    errno = kept;
    if (!how && !is_dir) return syscall(call, fd);
    if (how) path_of(fd, path);
    lock();
    if (how & OPAQUE) put_whole(fd, inode);
    uint64_t seq = put(call == SYS_syncfs ? 'S' : is_dir ? 'G' : 'F', inode, 0, 0, path, NULL, NULL, 0);
    unlock();
    int rc = syscall(call, fd);
    if (!rc) {
        lock();
        put('E', inode, (int64_t)seq, 0, NULL, NULL, NULL, 0);
        unlock();
    }
    return rc;
}
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }
int syncfs(int fd) { return do_sync(fd, SYS_syncfs); }
