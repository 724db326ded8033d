/*
 * As much of UEFI as the drivers in option ROMs need (UEFI Specification 2.10; the numbers are its
 * chapters). This runs inside the guest, as part of its firmware: nothing of Mullion is known here.
 */
#ifndef ROM_EFI_H
#define ROM_EFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EFIAPI __attribute__((ms_abi))

typedef uint64_t efi_status;
typedef void *efi_handle;

#define EFI_ERROR(n) (0x8000000000000000ull | (n))
#define EFI_SUCCESS 0ull
#define EFI_INVALID_PARAMETER EFI_ERROR(2)
#define EFI_UNSUPPORTED EFI_ERROR(3)
#define EFI_BAD_BUFFER_SIZE EFI_ERROR(4)
#define EFI_DEVICE_ERROR EFI_ERROR(7)
#define EFI_OUT_OF_RESOURCES EFI_ERROR(9)
#define EFI_NOT_FOUND EFI_ERROR(14)
#define EFI_TIMEOUT EFI_ERROR(18)

struct efi_guid {
    uint32_t a;
    uint16_t b, c;
    uint8_t d[8];
};

struct efi_table_header {
    uint64_t signature;
    uint32_t revision, size, crc32, reserved;
};

#define EFI_BOOT_SERVICES_DATA 4u
#define EFI_OPEN_BY_DRIVER 0x10u
#define EFI_OPEN_GET_PROTOCOL 0x02u
#define EVT_SIGNAL_EXIT_BOOT_SERVICES 0x201u
#define TPL_CALLBACK 8u
#define TPL_NOTIFY 16u

/* 7: boot services; those that are not used have no type. */
struct efi_boot_services {
    struct efi_table_header header;
    uint64_t(EFIAPI *raise_tpl)(uint64_t tpl);
    void(EFIAPI *restore_tpl)(uint64_t tpl);
    void *allocate_pages, *free_pages, *get_memory_map;
    efi_status(EFIAPI *allocate_pool)(uint32_t type, uint64_t size, void **out);
    efi_status(EFIAPI *free_pool)(void *pool);
    efi_status(EFIAPI *create_event)(uint32_t type, uint64_t tpl,
                                     void(EFIAPI *notify)(void *event, void *context),
                                     void *context, void **out);
    void *set_timer, *wait_for_event, *signal_event;
    efi_status(EFIAPI *close_event)(void *event);
    void *check_event;
    efi_status(EFIAPI *install_protocol)(efi_handle *handle, const struct efi_guid *guid,
                                         uint32_t native, void *interface);
    void *reinstall_protocol;
    efi_status(EFIAPI *uninstall_protocol)(efi_handle handle, const struct efi_guid *guid,
                                           void *interface);
    void *handle_protocol, *reserved, *register_protocol_notify, *locate_handle;
    void *locate_device_path, *install_configuration_table;
    void *load_image, *start_image, *exit, *unload_image, *exit_boot_services;
    void *get_next_monotonic_count;
    efi_status(EFIAPI *stall)(uint64_t microseconds);
    void *set_watchdog_timer, *connect_controller, *disconnect_controller;
    efi_status(EFIAPI *open_protocol)(efi_handle handle, const struct efi_guid *guid, void **out,
                                      efi_handle agent, efi_handle controller, uint32_t how);
    efi_status(EFIAPI *close_protocol)(efi_handle handle, const struct efi_guid *guid,
                                       efi_handle agent, efi_handle controller);
};

struct efi_system_table {
    struct efi_table_header header;
    void *vendor;
    uint32_t vendor_revision;
    void *console_in_handle, *console_in, *console_out_handle, *console_out;
    void *error_handle, *error;
    void *runtime;
    struct efi_boot_services *boot;
};

/* 11.1: driver binding. */
#define EFI_DRIVER_BINDING_GUID                                                                    \
    {                                                                                              \
        0x18a031ab, 0xb443, 0x4d1a,                                                                \
        {                                                                                          \
            0xa5, 0xc0, 0x0c, 0x09, 0x26, 0x1e, 0x9f, 0x71                                         \
        }                                                                                          \
    }
struct efi_driver_binding {
    efi_status(EFIAPI *supported)(struct efi_driver_binding *self, efi_handle controller,
                                  void *remaining);
    efi_status(EFIAPI *start)(struct efi_driver_binding *self, efi_handle controller,
                              void *remaining);
    efi_status(EFIAPI *stop)(struct efi_driver_binding *self, efi_handle controller,
                             uint64_t children, efi_handle *child);
    uint32_t version;
    efi_handle image, handle;
};

/* 14.4: PCI I/O. */
#define EFI_PCI_IO_GUID                                                                            \
    {                                                                                              \
        0x4cf5b200, 0x68b8, 0x4ca5,                                                                \
        {                                                                                          \
            0x9e, 0xec, 0xb2, 0x3e, 0x3f, 0x50, 0x02, 0x9a                                         \
        }                                                                                          \
    }
#define EFI_PCI_UINT32 2u
#define EFI_PCI_DEVICE_READS 0u /* bus master read, write, both */
#define EFI_PCI_DEVICE_WRITES 1u
#define EFI_PCI_COMMON_BUFFER 2u
#define EFI_PCI_GET 0u
#define EFI_PCI_SET 1u
#define EFI_PCI_ENABLE 2u
#define EFI_PCI_MEMORY 0x200u
#define EFI_PCI_BUS_MASTER 0x400u
#define EFI_PCI_DUAL_ADDRESS_CYCLE 0x8000u

struct efi_pci_io;
typedef efi_status(EFIAPI *efi_pci_access)(struct efi_pci_io *self, uint32_t width, uint8_t bar,
                                           uint64_t offset, uint64_t count, void *buffer);
typedef efi_status(EFIAPI *efi_pci_config)(struct efi_pci_io *self, uint32_t width, uint32_t offset,
                                           uint64_t count, void *buffer);
struct efi_pci_io {
    void *poll_mem, *poll_io;
    efi_pci_access mem_read, mem_write, io_read, io_write;
    efi_pci_config config_read, config_write;
    void *copy_mem;
    efi_status(EFIAPI *map)(struct efi_pci_io *self, uint32_t operation, void *host,
                            uint64_t *bytes, uint64_t *device, void **mapping);
    efi_status(EFIAPI *unmap)(struct efi_pci_io *self, void *mapping);
    efi_status(EFIAPI *allocate_buffer)(struct efi_pci_io *self, uint32_t how, uint32_t type,
                                        uint64_t pages, void **host, uint64_t attributes);
    efi_status(EFIAPI *free_buffer)(struct efi_pci_io *self, uint64_t pages, void *host);
    void *flush, *get_location;
    efi_status(EFIAPI *attributes)(struct efi_pci_io *self, uint32_t operation, uint64_t value,
                                   uint64_t *result);
};

/* 15.7: extended SCSI pass thru. */
#define EFI_EXT_SCSI_PASS_THRU_GUID                                                                \
    {                                                                                              \
        0x143b7632, 0xb81b, 0x4cb7,                                                                \
        {                                                                                          \
            0xab, 0xd3, 0xb6, 0x25, 0xa5, 0xb9, 0xbf, 0xfe                                         \
        }                                                                                          \
    }
#define EFI_SCSI_TARGET_BYTES 16u
#define EFI_SCSI_PHYSICAL 1u
#define EFI_SCSI_LOGICAL 2u
#define EFI_SCSI_READ 0u /* data direction */
#define EFI_SCSI_WRITE 1u
/* Host adapter status. */
#define EFI_SCSI_OK 0x00u
#define EFI_SCSI_TIMEOUT_COMMAND 0x09u
#define EFI_SCSI_SELECTION_TIMEOUT 0x11u
#define EFI_SCSI_DATA_RUN 0x12u
#define EFI_SCSI_OTHER 0x7fu

struct efi_scsi_mode {
    uint32_t adapter, attributes, io_align;
};

struct efi_scsi_packet {
    uint64_t timeout; /* 100 ns; 0: none */
    void *in, *out, *sense, *cdb;
    uint32_t in_length, out_length;
    uint8_t cdb_length, direction, host_status, target_status, sense_length;
};

struct efi_device_path {
    uint8_t type, subtype, length[2];
};

struct efi_scsi_path { /* 10.3.4.2 */
    struct efi_device_path head;
    uint16_t target, lun;
};

struct efi_ext_scsi {
    struct efi_scsi_mode *mode;
    efi_status(EFIAPI *pass_thru)(struct efi_ext_scsi *self, uint8_t *target, uint64_t lun,
                                  struct efi_scsi_packet *packet, void *event);
    efi_status(EFIAPI *next_target_lun)(struct efi_ext_scsi *self, uint8_t **target, uint64_t *lun);
    efi_status(EFIAPI *build_path)(struct efi_ext_scsi *self, uint8_t *target, uint64_t lun,
                                   struct efi_device_path **out);
    efi_status(EFIAPI *target_lun)(struct efi_ext_scsi *self, struct efi_device_path *path,
                                   uint8_t **target, uint64_t *lun);
    efi_status(EFIAPI *reset_channel)(struct efi_ext_scsi *self);
    efi_status(EFIAPI *reset_target_lun)(struct efi_ext_scsi *self, uint8_t *target, uint64_t lun);
    efi_status(EFIAPI *next_target)(struct efi_ext_scsi *self, uint8_t **target);
};

#endif
