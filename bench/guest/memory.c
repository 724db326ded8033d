/* Memory: a pointer chase over 64 MiB, fresh pages, mmap and munmap, copies by SSE2 and by string
 * instructions. */
#include <emmintrin.h>
#include <sys/mman.h>

#include "bench.h"

static int chase(void)
{
    enum { NODES = 1 << 20 }; /* one a cache line: 64 MiB */
    struct node {
        struct node *next;
        uint64_t pad[7];
    } *nodes = mmap(NULL, NODES * sizeof(struct node), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (nodes == MAP_FAILED)
        return bench_done("chase", 0, 0);
    uint32_t *order = malloc(NODES * sizeof(*order));
    uint64_t seed = 88172645463325252u;
    for (uint32_t i = 0; i < NODES; i++)
        order[i] = i;
    for (uint32_t i = NODES - 1; i > 0; i--) { /* one cycle (Sattolo) */
        uint32_t j = (uint32_t)(bench_random(&seed) % i), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < NODES; i++)
        nodes[i].next = &nodes[order[i]];
    double start = bench_now();
    struct node *p = nodes;
    for (int i = 0; i < NODES * 3; i++)
        p = p->next;
    int ret = bench_done("chase", start, p == nodes);
    free(order);
    munmap(nodes, NODES * sizeof(struct node));
    return ret;
}

static int fresh(void)
{
    enum { SIZE = 64 << 20 };
    double start = bench_now();
    for (int r = 0; r < 3; r++) {
        volatile uint8_t *p =
            mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return bench_done("fresh", start, 0);
        for (int i = 0; i < SIZE; i += 4096)
            p[i] = 1;
        munmap((void *)(uintptr_t)p, SIZE);
    }
    return bench_done("fresh", start, 1);
}

static int map_unmap(void)
{
    double start = bench_now();
    for (int i = 0; i < 20000; i++) {
        volatile uint8_t *p =
            mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return bench_done("mmap", start, 0);
        p[0] = p[8192] = 1;
        munmap((void *)(uintptr_t)p, 16384);
    }
    return bench_done("mmap", start, 1);
}

static int copies(void)
{
    enum { SIZE = 1 << 20, ROUNDS = 1200 };
    uint8_t *from = aligned_alloc(4096, SIZE), *to = aligned_alloc(4096, SIZE);
    for (int i = 0; i < SIZE; i++)
        from[i] = (uint8_t)(i * 7);
    memset(to, 0, SIZE);
    double start = bench_now();
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < SIZE; i += 64) {
            __m128i a = _mm_load_si128((const __m128i *)(from + i));
            __m128i b = _mm_load_si128((const __m128i *)(from + i + 16));
            __m128i c = _mm_load_si128((const __m128i *)(from + i + 32));
            __m128i d = _mm_load_si128((const __m128i *)(from + i + 48));
            _mm_store_si128((__m128i *)(to + i), a);
            _mm_store_si128((__m128i *)(to + i + 16), b);
            _mm_store_si128((__m128i *)(to + i + 32), c);
            _mm_store_si128((__m128i *)(to + i + 48), d);
        }
        __asm__ volatile("" ::: "memory");
    }
    int ret = bench_done("sse2copy", start, !memcmp(from, to, SIZE));
    memset(to, 0, SIZE);
    start = bench_now();
    for (int r = 0; r < ROUNDS; r++) {
        const void *s = from;
        void *d = to;
        size_t n = SIZE;
        __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
    }
    ret |= bench_done("repmovsb", start, !memcmp(from, to, SIZE));
    return ret;
}

int main(void)
{
    return chase() | fresh() | map_unmap() | copies();
}
