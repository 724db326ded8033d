/*
 * The code cache: memory, lookup, chaining, dropping translations of bytes that were written, and
 * the flush when it is full. Built for general registers only: most of it runs between two blocks.
 *
 * Who may do what: blocks, edges and page lists change under cache->lock; lookups read the hash
 * without it; jumps are patched by four-byte stores inside an aligned quadword, which running code
 * sees whole.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/soft/cache.h"
#include "engine/soft/monitor.h"

/* ---- A lock of futexes: pthread's could use vector registers ---- */

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    long r;
    register const struct timespec *r10 __asm__("r10") = timeout;
    register long r8 __asm__("r8") = 0;
    register long r9 __asm__("r9") = 0;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(SYS_futex), "D"(word), "S"(op), "d"(value), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}

void soft_futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *timeout)
{
    futex(word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value, timeout);
}

void soft_futex_wake(_Atomic uint32_t *word, int count)
{
    futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, (uint32_t)count, NULL);
}

void soft_yield(void)
{
    long r = SYS_sched_yield;
    __asm__ volatile("syscall" : "+a"(r) : : "rcx", "r11", "memory");
}

/* 0: free, 1: held, 2: held and waited for. */
void soft_cache_lock(struct soft_cache *cache)
{
    uint32_t free = 0;
    if (atomic_compare_exchange_strong(&cache->lock, &free, 1))
        return;
    while (atomic_exchange(&cache->lock, 2) != 0)
        soft_futex_wait(&cache->lock, 2, NULL);
}

void soft_cache_unlock(struct soft_cache *cache)
{
    if (atomic_exchange(&cache->lock, 0) == 2)
        soft_futex_wake(&cache->lock, 1);
}

/* ---- Memory ---- */

void *soft_cache_alloc(struct soft_cache *cache, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (cache->arena_size - cache->arena_used < size)
        return NULL;
    void *p = cache->arena + cache->arena_used;
    cache->arena_used += size;
    return p;
}

/* ---- Lookup ---- */

static uint32_t hash_of(uint64_t gpa, uint64_t rip, uint32_t mode)
{
    uint64_t h = (gpa ^ (rip >> 12) * 0x9e3779b1u ^ (uint64_t)mode << 17) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32);
}

struct soft_block *soft_block_find(struct soft_cache *cache, uint64_t gpa, uint64_t key,
                                   uint32_t mode)
{
    struct soft_block *b = atomic_load_explicit(
        &cache->hash[hash_of(gpa, key, mode) & cache->hash_mask], memory_order_acquire);
    while (b && !(b->gpa == gpa && b->rip == key && b->mode == mode))
        b = atomic_load_explicit(&b->hash_next, memory_order_acquire);
    return b;
}

struct soft_block *soft_block_at(struct soft_cache *cache, const uint8_t *host, unsigned *index)
{
    uint32_t low = 0, high = __atomic_load_n(&cache->blocks, __ATOMIC_ACQUIRE);

    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (cache->by_address[middle]->start <= host)
            low = middle;
        else
            high = middle;
    }
    if (high == 0)
        return NULL;
    struct soft_block *b = cache->by_address[low];
    if (host < b->start || host >= b->end)
        return NULL;
    unsigned i = b->insns - 1u;
    while (i > 0 && b->start + b->map[i].host > host)
        i--;
    *index = i;
    return b;
}

static struct soft_code_page *code_page(struct soft_cache *cache, uint64_t gpa)
{
    const struct soft_vm *vm = cache->vm;
    for (unsigned i = 0; i < vm->ram_count; i++) {
        if (gpa - vm->ram[i].gpa < vm->ram[i].size)
            return &cache->pages[i][(gpa - vm->ram[i].gpa) >> MULL_PAGE_SHIFT];
    }
    return NULL;
}

void soft_watch_page(struct soft_vm *vm, const struct mull_ram *ram, uint64_t gpa)
{
    _Atomic uint8_t *flags = &ram->flags[(gpa - ram->gpa) >> MULL_PAGE_SHIFT];

    code_page(vm->cache, gpa)->idle = 0;
    if (!(atomic_fetch_or(flags, MULL_PAGE_CODE) & MULL_PAGE_CODE))
        soft_tlb_protect(vm, ram, gpa & MULL_PAGE_MASK);
}

static void link_page(struct soft_cache *cache, struct soft_page_link *link,
                      struct soft_block *block, uint64_t gpa)
{
    struct soft_code_page *page = code_page(cache, gpa);

    link->block = block;
    link->next = page->blocks;
    page->blocks = link;
    page->idle = 0;
    page->translated = true;
}

bool soft_block_publish(struct soft_cache *cache, struct soft_block *block)
{
    struct soft_page_link *link = soft_cache_alloc(cache, 2 * sizeof(*link));
    struct soft_block *_Atomic *bucket =
        &cache->hash[hash_of(block->gpa, block->rip, block->mode) & cache->hash_mask];

    if (!link)
        return false;
    link_page(cache, link, block, block->gpa);
    if (block->gpa_next)
        link_page(cache, link + 1, block, block->gpa_next);
    atomic_store(&block->valid, true);
    cache->by_address[cache->blocks] = block;
    __atomic_store_n(&cache->blocks, cache->blocks + 1, __ATOMIC_RELEASE);
    atomic_store_explicit(&block->hash_next, atomic_load(bucket), memory_order_relaxed);
    atomic_store_explicit(bucket, block, memory_order_release);
    return true;
}

/* ---- Chaining ---- */

static void patch(struct soft_cache *cache, struct soft_edge *edge, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (edge->site + 4));
    __atomic_store_n((int32_t *)soft_cache_rw(cache, edge->site), rel, __ATOMIC_RELEASE);
}

void soft_edge_chain(struct soft_cache *cache, struct soft_edge *edge, struct soft_block *to)
{
    soft_cache_lock(cache);
    if (!edge->to && atomic_load(&to->valid) && atomic_load(&edge->from->valid)) {
        edge->to = to;
        edge->next = to->incoming;
        to->incoming = edge;
        patch(cache, edge, edge->polled ? to->polled : to->body);
    }
    soft_cache_unlock(cache);
}

/* ---- Dropping ---- */

/* Take a block out of everything that leads to it (lock held). Its memory stays until a flush: a
 * vCPU may be inside. */
static void drop(struct soft_cache *cache, struct soft_block *b)
{
    struct soft_vm *vm = cache->vm;

    atomic_store(&b->valid, false);
    struct soft_block *_Atomic *link =
        &cache->hash[hash_of(b->gpa, b->rip, b->mode) & cache->hash_mask];
    while (atomic_load(link) != b)
        link = &atomic_load(link)->hash_next;
    atomic_store(link, atomic_load(&b->hash_next));

    for (struct soft_edge *edge = b->incoming; edge;) {
        struct soft_edge *next = edge->next;
        patch(cache, edge, edge->stub);
        edge->to = NULL;
        edge = next;
    }
    b->incoming = NULL;

    unsigned slot = soft_jump_index(b->rip);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        for (unsigned w = 0; cpu && w < SOFT_WINDOWS; w++) {
            uint64_t expected = (uint64_t)(uintptr_t)b->indirect;
            __atomic_compare_exchange_n(&cpu->windows[w]->jump[slot], &expected, cpu->jump_miss,
                                        false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        }
    }
}

void soft_block_drop(struct soft_cache *cache, struct soft_block *block)
{
    soft_cache_lock(cache);
    if (atomic_load(&block->valid))
        drop(cache, block);
    soft_cache_unlock(cache);
}

static unsigned roaming_bit(uint64_t gpa)
{
    return (unsigned)((gpa * 0x9e3779b97f4a7c15ull) >> 48) & (SOFT_ROAMING - 1);
}

bool soft_insn_roams(const struct soft_cache *cache, uint64_t gpa)
{
    unsigned bit = roaming_bit(gpa);
    return cache->roaming[bit / 64] >> bit % 64 & 1;
}

void soft_block_roams(struct soft_cache *cache, struct soft_block *block, unsigned insn)
{
    unsigned bit = roaming_bit(block->gpa + (uint64_t)(int64_t)block->map[insn].guest);

    soft_cache_lock(cache);
    cache->roaming[bit / 64] |= 1ull << bit % 64;
    if (atomic_load(&block->valid))
        drop(cache, block);
    soft_cache_unlock(cache);
}

bool soft_loop_taken(struct soft_cache *cache, struct soft_edge *edge)
{
    struct soft_block *b = edge->from;
    unsigned bit = roaming_bit(b->gpa);

    if (__atomic_add_fetch(&edge->taken, 1, __ATOMIC_RELAXED) < SOFT_LOOP_HOT)
        return false;
    soft_cache_lock(cache);
    cache->loops[bit / 64] |= 1ull << bit % 64;
    if (atomic_load(&b->valid))
        drop(cache, b);
    soft_cache_unlock(cache);
    return true;
}

bool soft_loop_is_hot(const struct soft_cache *cache, uint64_t gpa)
{
    unsigned bit = roaming_bit(gpa);
    return cache->loops[bit / 64] >> bit % 64 & 1;
}

/* Was the block made of bytes in [gpa, gpa + len)? */
static bool overlaps(const struct soft_block *b, uint64_t gpa, uint64_t len)
{
    uint64_t page = b->gpa & MULL_PAGE_MASK;

    if (page + b->low < gpa + len && gpa < page + (b->gpa_next ? MULL_PAGE_SIZE : b->high))
        return true;
    return b->gpa_next && b->gpa_next < gpa + len && gpa < b->gpa_next + (b->high - MULL_PAGE_SIZE);
}

void soft_code_written(struct soft_vm *vm, struct soft_cpu *cpu, uint64_t gpa, uint64_t len)
{
    struct soft_cache *cache = vm->cache;
    const struct mull_ram *ram = soft_find_ram(vm, gpa);
    struct soft_code_page *page = code_page(cache, gpa);

    if (!page || !ram)
        return;
    soft_cache_lock(cache);
    bool dropped = false;
    for (struct soft_page_link **link = &page->blocks; *link;) {
        struct soft_block *b = (*link)->block;
        bool valid = atomic_load(&b->valid); /* else dropped through its other page */
        if (valid && !overlaps(b, gpa, len)) {
            link = &(*link)->next;
            continue;
        }
        *link = (*link)->next;
        if (valid)
            drop(cache, b);
        dropped |= valid;
    }
    if (!cpu) { /* a device's data: what was known of the page is of the past */
        __atomic_store_n(&page->rewritten, 0, __ATOMIC_RELAXED);
    } else if (dropped && page->translated) {
        page->translated = false;
        page->waited = 0;
        if (page->rewritten < SOFT_REWRITES)
            __atomic_store_n(&page->rewritten, page->rewritten + 1, __ATOMIC_RELAXED);
    }
    soft_monitor_written(vm, gpa, len);
    if (!page->blocks && page->idle < SOFT_PAGE_PATIENCE)
        page->idle++;
    if (!page->blocks && page->idle == SOFT_PAGE_PATIENCE && !soft_monitor_watches(vm, gpa))
        atomic_fetch_and(&ram->flags[(gpa - ram->gpa) >> MULL_PAGE_SHIFT],
                         (uint8_t)~MULL_PAGE_CODE);
    soft_cache_unlock(cache);
    if (cpu) {
        cpu->stats.code_writes++;
        if (dropped)
            cpu->code_changed = true;
    } else if (dropped) {
        /* A device wrote, perhaps told to by the instruction that a vCPU is executing. */
        for (unsigned i = 0; i < vm->cpus; i++)
            if (vm->cpu[i])
                __atomic_store_n(&vm->cpu[i]->code_changed, true, __ATOMIC_RELAXED);
    }
}

bool soft_code_restless(struct soft_cache *cache, uint64_t gpa, bool same)
{
    struct soft_code_page *page = code_page(cache, gpa);

    if (!page || __atomic_load_n(&page->rewritten, __ATOMIC_RELAXED) < SOFT_REWRITES)
        return false;
    soft_cache_lock(cache);
    bool restless = !same && ++page->waited < SOFT_REWRITTEN_WAIT;
    if (!restless) {
        __atomic_store_n(&page->rewritten, page->rewritten / 2, __ATOMIC_RELAXED);
        page->waited = 0;
    }
    soft_cache_unlock(cache);
    return restless;
}

void soft_code_break(struct soft_vm *vm, uint64_t at)
{
    struct soft_cache *cache = vm->cache;

    soft_cache_lock(cache);
    for (uint32_t i = 0; i < cache->blocks; i++) {
        struct soft_block *b = cache->by_address[i];
        uint64_t page = soft_key_linear(b->mode, b->rip) - (b->gpa & ~MULL_PAGE_MASK);
        if (atomic_load(&b->valid) && at - page >= b->low && at - page < b->high)
            drop(cache, b);
    }
    soft_cache_unlock(cache);
}

/* ---- Flush ---- */

/* Return the memory of all translations to the host. */
static void give_back(struct soft_cache *cache)
{
    size_t keep = (cache->code_start + MULL_PAGE_SIZE - 1) & MULL_PAGE_MASK;

    if (cache->used > keep)
        madvise(cache->rw + keep, cache->used - keep, MADV_REMOVE);
    madvise(cache->arena, cache->arena_used, MADV_DONTNEED);
    madvise(cache->by_address, cache->blocks * sizeof(*cache->by_address), MADV_DONTNEED);
}

/* The same of jump tables: an empty one is the file's, which all windows share. */
static void give_back_jumps(struct soft_cpu *cpu)
{
    for (unsigned w = 0; w < SOFT_WINDOWS; w++)
        if (madvise(cpu->windows[w]->jump, sizeof(cpu->windows[w]->jump), MADV_DONTNEED) == 0)
            cpu->windows[w]->jump_filled = 0;
}

static void clear_all(struct soft_cache *cache)
{
    struct soft_vm *vm = cache->vm;

    for (unsigned i = 0; i < vm->ram_count; i++) {
        uint64_t pages = vm->ram[i].size >> MULL_PAGE_SHIFT;
        for (uint64_t p = 0; p < pages; p++) {
            if (cache->pages[i][p].blocks) {
                cache->pages[i][p].blocks = NULL;
                if (!soft_monitor_watches(vm, vm->ram[i].gpa + (p << MULL_PAGE_SHIFT)))
                    atomic_fetch_and(&vm->ram[i].flags[p], (uint8_t)~MULL_PAGE_CODE);
            }
        }
    }
    for (uint32_t i = 0; i <= cache->hash_mask; i++)
        atomic_store_explicit(&cache->hash[i], NULL, memory_order_relaxed);
    for (unsigned i = 0; i < vm->cpus; i++) {
        if (vm->cpu[i] && cache->give_back)
            give_back_jumps(vm->cpu[i]);
        for (unsigned w = 0; vm->cpu[i] && w < SOFT_WINDOWS; w++)
            soft_jump_clear(vm->cpu[i], vm->cpu[i]->windows[w]);
    }
    memset(cache->roaming, 0, sizeof(cache->roaming));
    memset(cache->loops, 0, sizeof(cache->loops));
    if (cache->give_back)
        give_back(cache);
    cache->give_back = false;
    __atomic_store_n(&cache->blocks, 0, __ATOMIC_RELEASE);
    cache->used = cache->code_start;
    cache->arena_used = 0;
    cache->flushes++;
}

void soft_cache_idle(struct soft_cpu *cpu)
{
    struct soft_cache *cache = cpu->vm->cache;

    if (cache->used < SOFT_IDLE_CODE || atomic_load(&cache->inside))
        return;
    soft_cache_lock(cache);
    cache->give_back = true;
    soft_cache_unlock(cache);
    atomic_store(&cache->flush_wanted, 1);
    soft_cache_flush_wait(cpu);
}

void soft_cache_flush_wait(struct soft_cpu *cpu)
{
    struct soft_cache *cache = cpu->vm->cache;
    uint32_t inside;

    /* Make everybody come out; who is inside polls, who sleeps is outside. */
    while ((inside = atomic_load(&cache->inside)) != 0 && atomic_load(&cache->flush_wanted)) {
        for (unsigned i = 0; i < cpu->vm->cpus; i++) {
            struct soft_cpu *other = cpu->vm->cpu[i];
            if (other && other != cpu)
                soft_leave_code(other);
        }
        struct timespec ms = {.tv_nsec = 1000000};
        soft_futex_wait(&cache->inside, inside, &ms);
    }
    soft_cache_lock(cache);
    if (atomic_load(&cache->flush_wanted) && !atomic_load(&cache->inside)) {
        clear_all(cache);
        atomic_store(&cache->flush_wanted, 0);
    }
    soft_cache_unlock(cache);
}
