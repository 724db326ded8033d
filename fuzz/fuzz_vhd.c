/* Fuzzes the vhd format: see fuzz_image.h. */
#define FUZZ_FORMAT "vhd"
#include "fuzz_image.h"
