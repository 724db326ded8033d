/*
 * From Zydis's description of an instruction to the record that soft_exec() runs. Knows Zydis and
 * nothing of a CPU's state.
 */
#ifndef MULL_SOFT_DECODE_H
#define MULL_SOFT_DECODE_H

#include <Zydis/Zydis.h>

#include "engine/soft/soft.h"

/** Prepare a decoder for code of 16, 32 or 64 bits, with the options soft_decode() uses. */
void soft_decoder_init(ZydisDecoder *decoder, unsigned code_bits);

/** ZydisDecoderDecodeFull(), but for what Zydis 4.0 gets wrong. */
ZyanStatus soft_zydis_decode(const ZydisDecoder *decoder, const uint8_t *bytes, size_t available,
                             ZydisDecodedInstruction *z,
                             ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT]);

/**
 * Make the record of an instruction that was decoded already.
 *
 * @param z      decoded with soft_zydis_decode()
 * @param ops    all z->operand_count operands, hidden ones too
 * @param bytes  the z->length bytes of the instruction
 */
void soft_insn_from_zydis(struct soft_insn *out, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *ops, const uint8_t *bytes, unsigned code_bits);

#endif
