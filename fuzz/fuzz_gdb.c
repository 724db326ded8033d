/*
 * What a hostile peer of the GDB stub can do: bytes into a session over a fake machine. Every byte
 * FFh of the input is a stop of the machine instead.
 */
#include <stdint.h>
#include <stdlib.h>

#include "../tests/unit/gdb_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake *f = calloc(1, sizeof(*f));
    struct gdb_target target = fake_target;

    if (!f)
        return 0;
    target.opaque = f;
    f->held = true;
    f->session = gdb_session_create(&target);
    /* Sums need not be right. */
    static const char no_ack[] = "$QStartNoAckMode#b0";
    bool goes_on = f->session && gdb_session_input(f->session, no_ack, sizeof(no_ack) - 1);
    for (size_t i = 0; i < size && goes_on; i++) {
        if (data[i] != 0xff) {
            goes_on = gdb_session_input(f->session, (const char *)data + i, 1);
        } else if (!f->held) {
            struct mull_debug_hit hit = {.step = f->points == 0};
            if (f->points)
                hit.point = f->point[i % f->points];
            f->held = true;
            gdb_session_stopped(f->session, (unsigned)(i % FAKE_CPUS), &hit);
        }
    }
    gdb_session_destroy(f->session);
    free(f);
    return 0;
}
