/*
 * Containment: programs whose registers hold addresses of the host, in a process where those lead
 * to something. No access and no jump may get there, and both tiers must see the faults that a
 * guest without such pages sees. (Guest memory itself lies between unmapped stretches in every test
 * here: see guest.c.)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "diff.h"
#include "engine/soft/cache.h"

#define SECRET_SIZE (1u << 20)
#define SECRET_WORD 0x5ec5e7bau

static uint8_t *secret;
static uint64_t glue_sum;

static uint64_t sum(const uint8_t *bytes, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * 0x100000001b3ull;
    return h;
}

static uint64_t sum_glue(void)
{
    const struct soft_cache *cache = diff_guest_cpu()->vm->cache;

    return sum(cache->rx, cache->code_start);
}

static bool secret_is_intact(void)
{
    const uint32_t word = SECRET_WORD;

    for (size_t i = 0; i < SECRET_SIZE; i += sizeof(word))
        if (memcmp(secret + i, &word, sizeof(word)))
            return false;
    return true;
}

bool diff_contain_init(void)
{
    const uint32_t word = SECRET_WORD;

    secret = mmap(NULL, SECRET_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (secret == MAP_FAILED)
        return false;
    for (size_t i = 0; i < SECRET_SIZE; i += sizeof(word))
        memcpy(secret + i, &word, sizeof(word));
    glue_sum = sum_glue();
    return true;
}

/* An address of this process that is worth getting at. */
static uint64_t host_address(struct diff_random *r)
{
    const struct soft_cpu *cpu = diff_guest_cpu();
    const struct soft_cache *cache = cpu->vm->cache;
    const struct mull_ram *ram = &cpu->vm->ram[diff_below(r, cpu->vm->ram_count)];
    const void *at;

    switch (diff_below(r, 8)) {
    case 0:
        at = cache->rx + diff_below(r, 1u << 16);
        break;
    case 1:
        at = cache->rw + diff_below(r, 1u << 16);
        break;
    case 2:
        at = (const uint8_t *)cpu + diff_below(r, sizeof(struct soft_window));
        break;
    case 3: /* guest memory, by the host's address */
        at = ram->host + diff_below(r, (unsigned)ram->size);
        break;
    case 4:
        at = (const void *)(uintptr_t)printf;
        break;
    default:
        at = secret + diff_below(r, SECRET_SIZE);
        break;
    }
    return (uint64_t)(uintptr_t)at;
}

void diff_generate_hostile(struct diff_case *c, uint64_t seed)
{
    struct diff_random r = {seed * 0xa0761d6478bd642full | 1};

    diff_generate_program(c, seed, 64, false);
    c->name = "hostile";
    for (unsigned i = 1 + diff_below(&r, 6); i > 0; i--)
        c->gpr[diff_below(&r, 16)] = host_address(&r);
    if (diff_below(&r, 3) || c->size + 13 > DIFF_CODE_MAX || c->insns + 2 > DIFF_INSNS_MAX)
        return;
    /* mov $address, %rax; jmp *%rax, or push %rax; ret */
    uint64_t to = host_address(&r);
    uint8_t jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
    if (diff_below(&r, 2)) {
        jump[10] = 0x50;
        jump[11] = 0xc3;
    }
    memcpy(jump + 2, &to, 8);
    c->start[c->insns++] = (uint16_t)c->size;
    c->start[c->insns++] = (uint16_t)(c->size + 10);
    memcpy(c->code + c->size, jump, sizeof(jump));
    c->size += sizeof(jump);
}

/* Is the secret, in any of its rotations, somewhere in what the guest has now? */
static bool leaked(const struct diff_result *r)
{
    const uint8_t *bytes = (const uint8_t *)r;

    for (size_t i = 0; i + 4 <= sizeof(*r); i++) {
        uint32_t word;
        memcpy(&word, bytes + i, 4);
        if (word == SECRET_WORD)
            return true;
    }
    return false;
}

bool diff_contained(const struct diff_case *c, const struct diff_result *result)
{
    static unsigned turn;
    const char *what = NULL;

    if (leaked(result))
        what = "the guest has read memory of the host";
    else if (turn++ % 64 == 0 && !secret_is_intact())
        what = "the guest has written memory of the host";
    else if (turn % 64 == 0 && sum_glue() != glue_sum)
        what = "the guest has written the code cache";
    if (what) {
        printf("NOT CONTAINED: %s %llu: %s\n", c->name, (unsigned long long)c->seed, what);
        diff_print_case(c);
    }
    return !what;
}

/* The checks themselves must notice: with a wrong address in the TLB an access leaves guest memory.
 * It goes to the secret, and then to where nothing is mapped. */
bool diff_contain_check(void)
{
    static struct diff_case c;
    static struct diff_result r;
    static const uint8_t load[] = {0x8b, 0x06}; /* mov (%rsi), %eax */
    uint8_t *nothing = secret + SECRET_SIZE - DIFF_PAGE;

    memset(&c, 0, sizeof(c));
    c.name = "wrong address";
    c.bits = 64;
    c.insns = 1;
    c.size = sizeof(load);
    memcpy(c.code, load, sizeof(load));
    c.gpr[MULL_RSI] = DIFF_DATA + 0x100;
    c.gpr[MULL_RSP] = DIFF_STACK + 0x800;
    diff_fill_xsave(c.xsave, 1);
    diff_guest_run(&c, DIFF_TRANSLATE, false, &r);
    if (r.vector != 3 || leaked(&r))
        return false;
    diff_guest_run_wild(&c, secret, &r);
    if (!leaked(&r))
        return false;
    if (mprotect(nothing, DIFF_PAGE, PROT_NONE))
        return false;
    diff_guest_run_wild(&c, nothing, &r);
    return !mprotect(nothing, DIFF_PAGE, PROT_READ | PROT_WRITE) && r.vector == -1;
}
