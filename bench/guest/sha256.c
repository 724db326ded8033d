/* SHA-256 in plain C (FIPS 180-4) over 24 MiB. */
#include "bench.h"

static uint32_t k[64];

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* The constants are the fractions of the cube roots of the first primes (FIPS 180-4, 4.2.2). */
static void make_constants(uint32_t h[8])
{
    int n = 0;
    for (uint32_t p = 2; n < 64; p++) {
        int prime = 1;
        for (uint32_t d = 2; d * d <= p; d++)
            prime &= p % d != 0;
        if (!prime)
            continue;
        /* Integer cube and square roots of p * 2^96 and p * 2^64, bit by bit. */
        unsigned __int128 target3 = (unsigned __int128)p << 96;
        uint64_t root = 0;
        for (int bit = 37; bit >= 0; bit--) {
            uint64_t r = root | 1ull << bit;
            if ((unsigned __int128)r * r <= target3 / r)
                root = r;
        }
        k[n] = (uint32_t)root;
        if (n < 8) {
            unsigned __int128 target2 = (unsigned __int128)p << 64;
            uint64_t square = 0;
            for (int bit = 36; bit >= 0; bit--) {
                uint64_t r = square | 1ull << bit;
                if ((unsigned __int128)r * r <= target2)
                    square = r;
            }
            h[n] = (uint32_t)square;
        }
        n++;
    }
}

static void compress(uint32_t h[8], const uint8_t *b)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)b[4 * i] << 24 | b[4 * i + 1] << 16 | b[4 * i + 2] << 8 | b[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(s, h, 32);
    for (int i = 0; i < 64; i++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t1 = s[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & s[5]) ^ (~e & s[6])) +
                      k[i] + w[i];
        uint32_t t2 =
            (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 28);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

int main(void)
{
    enum { SIZE = 1 << 20, ROUNDS = 24 };
    uint8_t *data = malloc(SIZE);
    uint32_t first[8], h[8];
    make_constants(first);
    /* "abc", padded: the example of FIPS 180-4. */
    uint8_t abc[64] = {'a', 'b', 'c', 0x80, [63] = 24};
    memcpy(h, first, 32);
    compress(h, abc);
    int right = h[0] == 0xba7816bf && h[7] == 0xf20015ad;
    for (int i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 131 + (i >> 8));
    double start = bench_now();
    memcpy(h, first, 32);
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < SIZE; i += 64)
            compress(h, data + i);
    return bench_done("sha256", start, right && h[0]);
}
