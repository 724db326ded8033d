/*
 * What the parts of the 82574L share: e1000e.c (registers, interrupts, PHY, EEPROM, state) and
 * e1000e_rings.c (frames). Sections are those of the Intel 82574 GbE Controller Family Datasheet.
 */
#ifndef MULL_DEVICE_NET_E1000E_INTERNAL_H
#define MULL_DEVICE_NET_E1000E_INTERNAL_H

#include "device/net/nic.h"

/* Registers (10.1): byte offsets. */
#define E1000E_CTRL 0x0000
#define E1000E_CTRL_EXT 0x0018
#define E1000E_ICR 0x00c0
#define E1000E_RCTL 0x0100
#define E1000E_TCTL 0x0400
#define E1000E_RDBAL 0x2800
#define E1000E_RDBAH 0x2804
#define E1000E_RDLEN 0x2808
#define E1000E_RDH 0x2810
#define E1000E_RDT 0x2818
#define E1000E_PSRCTL 0x2170
#define E1000E_TDBAL 0x3800
#define E1000E_TDBAH 0x3804
#define E1000E_TDLEN 0x3808
#define E1000E_TDH 0x3810
#define E1000E_TDT 0x3818
#define E1000E_STATS 0x4000
#define E1000E_STATS_END 0x4128
#define E1000E_RXCSUM 0x5000
#define E1000E_RFCTL 0x5008
#define E1000E_MTA 0x5200
#define E1000E_RA 0x5400
#define E1000E_VFTA 0x5600
#define E1000E_REGS_END 0x6000

#define E1000E_CTRL_VME 0x40000000u

/* Statistics (10.2.7). */
#define E1000E_MPC 0x4010
#define E1000E_GPRC 0x4074
#define E1000E_BPRC 0x4078
#define E1000E_MPRC 0x407c
#define E1000E_GPTC 0x4080
#define E1000E_GORC 0x4088
#define E1000E_GOTC 0x4090
#define E1000E_TOR 0x40c0
#define E1000E_TOT 0x40c8
#define E1000E_TPR 0x40d0
#define E1000E_TPT 0x40d4
#define E1000E_MPTC 0x40f0
#define E1000E_BPTC 0x40f4
#define E1000E_TSCTC 0x40f8

/* Interrupt causes (10.2.4.1). */
#define E1000E_TXDW 0x00000001u
#define E1000E_TXQE 0x00000002u
#define E1000E_LSC 0x00000004u
#define E1000E_RXDMT0 0x00000010u
#define E1000E_RXT0 0x00000080u
#define E1000E_RXQ0 0x00100000u
#define E1000E_TXQ0 0x00400000u
#define E1000E_OTHER 0x01000000u

#define E1000E_VECTORS 5

/** A transmit context (7.2.6): what offloads of the following packets mean. */
struct e1000e_context {
    uint8_t ipcss, ipcso, tucss, tucso, command, header;
    uint16_t ipcse, tucse, mss;
};

struct e1000e {
    struct mull_nic nic; /* must be first */
    uint32_t reg[E1000E_REGS_END / 4];
    uint16_t phy[32];
    uint8_t phy_page;
    uint32_t icr, ims;
    uint32_t unsent; /* causes raised since their message was sent (MSI-X) */
    bool asserted;   /* INTx or MSI: the causes have been told */
    uint32_t io_address;
    struct e1000e_context context;
    uint64_t time_base, time_start; /* SYSTIM at guest time time_start (ns) */
    uint32_t time_rate;             /* TIMINCA */
    uint16_t eeprom[64];
    bool kicked;       /* TDT was written */
    uint32_t received; /* causes of this burst */
    uint64_t quiet_until[E1000E_VECTORS];
    struct mull_timer *throttle;
};

static inline uint32_t e1000e_get(const struct e1000e *e, unsigned offset)
{
    return e->reg[offset / 4];
}

/* All of these: locked. */

/** Causes have come up: interrupt as far as the driver wants it. */
void e1000e_raise(struct e1000e *e, uint32_t causes);

/** Add to a counter of 32 bits, or to one of 64 bits in two registers. */
void e1000e_count(struct e1000e *e, unsigned offset, uint32_t n);
void e1000e_count64(struct e1000e *e, unsigned offset, uint32_t n);

/* e1000e_rings.c */

/** Send what is in the ring. Loop's thread. */
void e1000e_transmit(struct e1000e *e);

/** See struct mull_nic_ops. */
bool e1000e_receive(struct mull_nic *nic, const struct mull_nic_frame *frame);
void e1000e_received(struct mull_nic *nic);

#endif
