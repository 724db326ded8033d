/*
 * The platform's own interrupt controllers and interval timer around a micro-guest that asks for
 * them
 * (`pc` in guests.c): 8259A pair, I/O APIC, 8254 and port 92h, wired as in a PC.
 */
#ifndef TESTS_MICRO_PC_H
#define TESTS_MICRO_PC_H

#include "machine.h"
#include "state/state.h"

/** Make them in m->memory. Before the engine's side, which they find through @m. */
int micro_pc_create(struct micro_machine *m, struct mull_error *err);
/** Free them; the loop does not run, nor does any vCPU. */
void micro_pc_destroy(struct micro_machine *m);

/** MICRO_PORT_LINE: input @value & 31 of the 8259As and the I/O APIC is @value >> 7. */
void micro_pc_line(struct micro_machine *m, unsigned value);

/** The 8259As' interrupt, as the callbacks of struct mull_lapics_config; the end of one that an I/O
 * APIC must hear of. */
int micro_pc_pending(struct micro_machine *m);
int micro_pc_accept(struct micro_machine *m);
void micro_pc_eoi(struct micro_machine *m, uint8_t vector);

/** Write them to a stream, and take them from it where the section is one of theirs. */
int micro_pc_save(struct micro_machine *m, struct mull_state_writer *w, struct mull_error *err);
int micro_pc_load(struct micro_machine *m, struct mull_state_reader *reader,
                  const struct mull_state_section *section, struct mull_error *err);
/** All is loaded and connected: timers go on. */
void micro_pc_resume(struct micro_machine *m);

#endif
