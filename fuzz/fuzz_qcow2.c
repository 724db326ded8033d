/* Fuzzes the qcow2 format: see fuzz_image.h. */
#define FUZZ_FORMAT "qcow2"
#include "fuzz_image.h"
