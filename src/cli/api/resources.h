/*
 * The options that say shares, reservations and limits, of machines and of pools alike.
 */
#ifndef MULL_CLI_API_RESOURCES_H
#define MULL_CLI_API_RESOURCES_H

#include "cli/api/command.h"

#define RESOURCE_SHARES "SHARES"

/* For the tables of options of commands that take them. */
#define RESOURCE_OPTIONS                                                                           \
    {"cpu-shares", RESOURCE_SHARES, "low, normal, high or a number: of CPU, where it is scarce",   \
     HOST_TEXT, false},                                                                            \
        {"cpu-reservation", "PERCENT", "of one CPU, kept for it", HOST_TEXT, false},               \
        {"cpu-limit", "PERCENT", "of one CPU, at most; none: as much as there is", HOST_TEXT,      \
         false},                                                                                   \
        {"memory-shares", RESOURCE_SHARES, "of memory, where it is scarce", HOST_TEXT, false},     \
        {"memory-reservation", "SIZE", "that it always has", HOST_TEXT, false},                    \
        {"memory-limit", "SIZE", "of the host's memory, at most; none: as much as there is",       \
         HOST_TEXT, false},                                                                        \
        {"disk-shares", RESOURCE_SHARES, "of its pool's bandwidth", HOST_TEXT, false},             \
        {"disk-reservation", "SIZE", "bytes a second of its pool's, kept for it", HOST_TEXT,       \
         false},                                                                                   \
        {"disk-limit", "SIZE", "bytes a second, of all disks", HOST_TEXT, false},                  \
        {"disk-read-limit", "SIZE", "bytes read a second", HOST_TEXT, false},                      \
        {"disk-write-limit", "SIZE", "bytes written a second", HOST_TEXT, false},                  \
        {"iops-limit", "N", "requests a second, of all disks", HOST_TEXT, false},                  \
        {"read-iops-limit", "N", "reads a second", HOST_TEXT, false},                              \
        {"write-iops-limit", "N", "writes a second", HOST_TEXT, false},                            \
        {"network-shares", RESOURCE_SHARES, "of its pool's bandwidth", HOST_TEXT, false},          \
        {"network-reservation", "SIZE", "bytes a second of its pool's, kept for it", HOST_TEXT,    \
         false},                                                                                   \
        {"network-limit", "SIZE", "bytes a second, of all cards", HOST_TEXT, false},               \
        {"network-in-limit", "SIZE", "bytes a second to the guest", HOST_TEXT, false},             \
    {                                                                                              \
        "network-out-limit", "SIZE", "bytes a second from the guest", HOST_TEXT, false             \
    }

/** Put what the options say into @amounts: {cpu, memory, disk, network}, each only where something
 *  is said. @return false: wrong, which has been said */
bool resources_put(struct host_call *call, json_t *amounts);

#endif
