/*
 * What a machine is made of, as data: read from JSON (docs/configuration.md), checked once here,
 * and used by machine.c to put the machine together. It can hold more than a machine can run yet:
 * what comes from elsewhere (appliance.h) is kept, and mull_machine_config_missing() names what is
 * not there. Knows no device and opens no file.
 */
#ifndef MULL_MACHINE_CONFIG_H
#define MULL_MACHINE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MULL_CONFIG_DISKS 16
#define MULL_CONFIG_NETWORKS 8
#define MULL_CONFIG_CONSOLES 8
#define MULL_CONFIG_FORWARDS 32
#define MULL_CONFIG_CDROMS 8
#define MULL_CONFIG_BOOT 16
#define MULL_CONFIG_MODULES 16
#define MULL_CONFIG_SHARES 8
#define MULL_MEMORY_MIN (16ull << 20)
#define MULL_MEMORY_MAX (1ull << 40)
#define MULL_CODE_CACHE_MIN (1ll << 20) /* the soft engine's own limits */
#define MULL_CODE_CACHE_MAX (1ll << 30)
#define MULL_MEMORY_DEFAULT (512ull << 20)

struct json_t;

/** Where a disk or CD-ROM drive sits; names in mull_bus_names. */
enum mull_bus {
    MULL_BUS_VIRTIO,
    MULL_BUS_SCSI, /* with the adapter that `adapter` names */
    MULL_BUS_NVME,
    MULL_BUS_SATA,
    MULL_BUS_IDE,
    MULL_BUS_PVSCSI,
    MULL_BUS_USB,
};
#define MULL_BUSES 7

/** What an I/O error of the host does; names in mull_on_error_names. */
enum mull_disk_on_error {
    MULL_ON_ERROR_REPORT, /* the guest gets it */
    MULL_ON_ERROR_PAUSE,  /* the machine is paused; resumed, it tries again */
    MULL_ON_ERROR_STOP,   /* the machine ends */
};

struct mull_disk_config {
    char *path;
    char *format; /* NULL: detect */
    bool readonly;
    bool direct; /* bypass the host's page cache */
    bool cbt;    /* note changed blocks, if no bitmap does already */
    enum mull_disk_on_error on_error;
    char serial[21];
    enum mull_bus bus;
    char *adapter;        /* SCSI: "lsilogic", "lsisas1068", ...; NULL: virtio-scsi */
    int controller, unit; /* on that bus; -1: the next that is free */
};

struct mull_cdrom_config {
    char *path; /* NULL: no medium */
    enum mull_bus bus;
    char *adapter;
    int controller, unit;
};

enum mull_network_kind {
    MULL_NETWORK_USER,
    MULL_NETWORK_TAP,
    MULL_NETWORK_NONE,
    MULL_NETWORK_HOST, /* one that mulliond keeps; it makes a tap of it when the machine starts */
};
/** VLANs of one card. */
#define MULL_CONFIG_VLANS 64

/** What the guest sees; names in mull_nic_names. */
enum mull_nic {
    MULL_NIC_VIRTIO,
    MULL_NIC_E1000E,
    MULL_NIC_VMXNET3,
    /* From here on: not there; e1000e takes their place. */
    MULL_NIC_E1000,
    MULL_NIC_PCNET,
    MULL_NIC_RTL8139,
};
#define MULL_NICS 6
#define MULL_NICS_THERE 3

struct mull_network_config {
    enum mull_network_kind kind;
    enum mull_nic model;
    char *name;      /* the network's name where it came from; NULL: none */
    char *interface; /* tap */
    int fd;          /* tap: open already in the machine's process; 0: it is to be opened */
    unsigned vlan;   /* host: the VLAN of what the guest sends untagged; 0: the network's */
    unsigned vlan_count; /* host: VLANs that the guest tags itself */
    uint16_t vlans[MULL_CONFIG_VLANS];
    bool has_mac;
    uint8_t mac[6];
    char *tftp;             /* user: the folder that TFTP serves; NULL: none */
    char *bootfile;         /* user: what DHCP tells the guest to boot, below that folder */
    unsigned forward_count; /* user: as for mull_passt_parse_forward() */
    char *forward[MULL_CONFIG_FORWARDS];
};

enum mull_console_kind {
    MULL_CONSOLE_NONE,
    MULL_CONSOLE_FD,
    MULL_CONSOLE_UNIX,
    MULL_CONSOLE_STDIO, /* `mullion run` makes descriptors of it */
    MULL_CONSOLE_FILE,
    MULL_CONSOLE_TCP,
};
enum mull_console_device {
    MULL_CONSOLE_SERIAL,
    MULL_CONSOLE_VIRTIO,
    MULL_CONSOLE_CHANNEL, /* a named port for an agent in the guest */
};

struct mull_console_config {
    enum mull_console_kind kind;
    enum mull_console_device device;
    int in_fd, out_fd; /* MULL_CONSOLE_FD; -1: that direction is not there */
    char *path;        /* UNIX, FILE; TCP: "[HOST]:PORT" */
    char *name;        /* CHANNEL: /dev/virtio-ports/NAME in the guest */
};

/** A folder of the host for the guest. */
struct mull_share_config {
    char *path, *tag;
    bool plan9; /* by 9P; else by virtiofs */
    bool readonly;
};

/** A module of a multiboot kernel. */
struct mull_module_config {
    char *path, *args; /* args: NULL: none */
};

/** What happens when the guest does not feed its watchdog; names in mull_watchdog_names. */
enum mull_watchdog {
    MULL_WATCHDOG_OFF, /* there is none */
    MULL_WATCHDOG_RESET,
    MULL_WATCHDOG_POWEROFF,
    MULL_WATCHDOG_PAUSE,
    MULL_WATCHDOG_NONE, /* it is only logged */
    MULL_WATCHDOG_NMI,
};

enum mull_boot_device { MULL_BOOT_DISK, MULL_BOOT_CDROM, MULL_BOOT_NETWORK, MULL_BOOT_FLOPPY };

/** One entry of the boot order: "disk", "cdrom:1", ... */
struct mull_boot_entry {
    enum mull_boot_device device;
    int index; /* which of them; -1: all, in order */
};

enum mull_display_kind { MULL_DISPLAY_NONE, MULL_DISPLAY_VNC };

struct mull_video_config {
    char *model;     /* NULL: no graphics adapter */
    uint64_t memory; /* bytes, 0: the model's own */
    unsigned heads;  /* 0: one */
};

/** Owned strings; free with mull_machine_config_free(). */
struct mull_machine_config {
    char *name;
    char uuid[37];    /* lower case; "": none */
    char *annotation; /* for people */
    char *os;         /* guest operating system, by the names of a VMX file's guestOS */
    char *firmware;   /* "bios", "uefi" or a file; NULL: none asked for */
    char *nvram;      /* file of UEFI variables */
    bool secure_boot;
    char *kernel, *initrd, *cmdline; /* initrd, cmdline: NULL: none */
    uint64_t memory;                 /* bytes */
    uint64_t memory_max;             /* as much can it become while it runs; 0: no more */
    unsigned cpus;
    unsigned cpus_max;                /* as many can it have while it runs; 0: no more */
    unsigned sockets, cores, threads; /* 0: not said; else their product is cpus */
    char *engine;                     /* "auto", "soft", "kvm" */
    bool no_reboot;                   /* a guest's reset ends the machine */
    bool perf_map;                    /* tell perf where translated code is */
    bool test_devices;                /* what bare-metal test kernels expect */
    unsigned disk_count;
    struct mull_disk_config disk[MULL_CONFIG_DISKS];
    unsigned network_count;
    struct mull_network_config network[MULL_CONFIG_NETWORKS];
    unsigned module_count;
    struct mull_module_config module[MULL_CONFIG_MODULES];
    unsigned console_count;
    struct mull_console_config console[MULL_CONFIG_CONSOLES];
    unsigned cdrom_count;
    struct mull_cdrom_config cdrom[MULL_CONFIG_CDROMS];
    unsigned share_count;
    struct mull_share_config share[MULL_CONFIG_SHARES];
    bool boot_menu;
    unsigned boot_count;
    struct mull_boot_entry boot[MULL_CONFIG_BOOT];
    enum mull_display_kind display;
    char *display_password_file; /* its first line; NULL: none */
    char *display_listen;        /* VNC: "unix:PATH" or "HOST:PORT"; NULL: chosen */
    char *display_certificates;  /* folder of TLS certificates; NULL: none */
    bool display_anonymous;      /* TLS without a certificate */
    char *display_keymap;        /* the guest's keyboard layout; NULL: "us" */
    bool display_clipboard;      /* a channel for the guest's agent (vmm/vdagent.h) */
    struct mull_video_config video;
    bool tablet, keyboard; /* on USB */
    bool tpm;
    uint64_t vsock_cid; /* the guest's address among virtual sockets; 0: 3 */
    char *vsock_path;   /* the host's socket for them; NULL: there are none */
    char *tpm_state;    /* folder of its state; NULL: there is no TPM yet */
    enum mull_watchdog watchdog;
    uint64_t code_cache;      /* soft engine: bytes for translated code; 0: its choice */
    bool packed_rings;        /* virtio devices offer packed virtqueues, too */
    bool vmware_tools;        /* VMware's backdoor for open-vm-tools, and its name in CPUID */
    bool balloon;             /* the guest can give memory back while it runs */
    bool localtime;           /* the RTC shows local time, not UTC */
    char *usb;                /* "1.1", "2.0", "3.0"; NULL: none */
    char *sound;              /* model; NULL: none */
    struct json_t *appliance; /* product, properties, licences (docs/appliances.md); or NULL */
    struct json_t *extra;     /* what other formats say and this one has no word for; or NULL */
};

extern const char *const mull_bus_names[MULL_BUSES + 1];
extern const char *const mull_nic_names[MULL_NICS + 1];
extern const char *const mull_on_error_names[4];
extern const char *const mull_boot_names[5];
extern const char *const mull_watchdog_names[7];

/**
 * Read a description: its syntax, types and ranges, not whether it can be run.
 *
 * @param json  text of a JSON object; unknown members are an error
 * @param out   filled in; to be freed with mull_machine_config_free() also after an error
 * @return 0 or a negative errno
 */
int mull_machine_config_read(const char *json, struct mull_machine_config *out,
                             struct mull_error *err);

/**
 * Write a description; what has its default is left out. Reading it gives the same again.
 *
 * @return a new reference, or NULL: no memory
 */
struct json_t *mull_machine_config_write(const struct mull_machine_config *config);

/**
 * What the description asks for and this version cannot run: one line for a person, which says what
 * takes its place.
 *
 * @return whether there is anything; else @out is ""
 */
bool mull_machine_config_missing(const struct mull_machine_config *config, char *out, size_t room);

/**
 * Read a configuration and check that it can be run.
 *
 * @param json  text of a JSON object; unknown members are an error
 * @param out   filled in; to be freed with mull_machine_config_free() also after an error
 * @return 0 or a negative errno
 */
int mull_machine_config_parse(const char *json, struct mull_machine_config *out,
                              struct mull_error *err);

/** Check ranges and what must be there. */
int mull_machine_config_check(const struct mull_machine_config *config, struct mull_error *err);

/** Make the names of files in a description whole: relative ones lie in @folder. @return 0 or
 *  -ENOMEM, -EILSEQ */
int mull_machine_config_resolve(struct json_t *root, const char *folder);

/** An empty one with the defaults (name, memory, cpus, engine). @return 0 or -ENOMEM */
int mull_machine_config_init(struct mull_machine_config *config);

void mull_machine_config_free(struct mull_machine_config *config);

/** Does firmware run first (asked for, or nothing else can: a disk or a CD-ROM and no kernel)? */
bool mull_machine_config_firmware(const struct mull_machine_config *config);

/** A UUID's text in any case, with or without braces, into lower case. @return 0 or -EINVAL */
int mull_uuid_parse(const char *text, char out[37]);

/** The index of @text in a list that ends with NULL, or -1. */
int mull_name_index(const char *const *names, const char *text);

/** "disk", "cdrom:1", ... @return 0 or -EINVAL */
int mull_boot_entry_parse(const char *text, struct mull_boot_entry *out);

/** "aa:bb:cc:dd:ee:ff" of a unicast address. @return 0 or -EINVAL */
int mull_mac_parse(const char *text, uint8_t mac[6]);

#endif
