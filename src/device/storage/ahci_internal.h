/*
 * What the parts of the AHCI adapter share: ahci.c (registers) and ahci_port.c (command
 * lists).
 */
#ifndef MULL_DEVICE_STORAGE_AHCI_INTERNAL_H
#define MULL_DEVICE_STORAGE_AHCI_INTERNAL_H

#include <pthread.h>

#include "device/storage/ahci.h"
#include "device/storage/ata.h"

#define AHCI_SLOTS ATA_TAGS

/* Port interrupts. */
#define PORT_DHRS 0x01u /* device to host register FIS */
#define PORT_PSS 0x02u  /* PIO setup FIS */
#define PORT_SDBS 0x08u /* set device bits FIS */
#define PORT_TFES 0x40000000u

struct ahci;
struct ahci_port;

/* A command on its way. */
struct ahci_request {
    struct mull_ata_request ata; /* must be first */
    struct ahci_port *port;
    bool active;
    uint64_t prdt; /* guest address of the table, and how far it is used */
    uint32_t entries, entry;
    uint32_t generation; /* of the port when it began */
};

struct ahci_port {
    struct ahci *hba;
    unsigned index;
    struct mull_ata_drive drive;
    /* Registers. */
    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    uint32_t started;    /* slots whose command has begun */
    uint32_t generation; /* counts resets: what began before is not told any more */
    uint32_t in_flight;
    bool stopping;                            /* ST is 0, commands are still on their way */
    bool failed;                              /* no command begins until ST is toggled */
    struct ahci_request *request[AHCI_SLOTS]; /* allocated when first needed */
};

struct ahci {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_device_env env;
    pthread_mutex_t lock;
    uint32_t ghc, is;
    uint32_t ports; /* bit i: port i is implemented */
    unsigned complaints;
    struct ahci_port port[MULL_AHCI_PORTS];
};

/* ahci.c; the lock is held in all of these. */

/** Raise port interrupts. */
void ahci_port_interrupt(struct ahci_port *p, uint32_t bits);

/* ahci_port.c */

/** The device's answer to a reset: its signature. */
void ahci_port_signature(struct ahci_port *p);

/** Begin the commands that wait in the list. Loop's thread. */
void ahci_port_run(struct ahci_port *p);

/** What is on its way is not told of any more. */
void ahci_port_forget(struct ahci_port *p);

/** The command list stops: CR falls when nothing is on its way. */
void ahci_port_stop(struct ahci_port *p);

#endif
