/*
 * A frame buffer for the micro-guest that asks for one (`frame` in guests.c): memory that a device
 * lends, which moves, hides and is looked at as the guest says.
 */
#ifndef TESTS_MICRO_FRAME_H
#define TESTS_MICRO_FRAME_H

#include "machine.h"

#define MICRO_FRAME_PAGES 16
#define MICRO_FRAME 0xd1000000u
#define MICRO_FRAME_AWAY 0xd1100000u

/** Put it into m->memory, as it was before if the machine has moved. */
int micro_frame_create(struct micro_machine *m, struct mull_error *err);
/** Take it out; what it holds stays. */
void micro_frame_remove(struct micro_machine *m);
void micro_frame_destroy(struct micro_machine *m);

/** MICRO_PORT_FRAME: 0 looks whether it was written, 1 moves it away, 2 back, 3 hides, 4 shows it.
 */
void micro_frame_do(struct micro_machine *m, unsigned what);
/** What the last look found. */
bool micro_frame_found(const struct micro_machine *m);

#endif
