/* Fuzzes the vdi format: see fuzz_image.h. */
#define FUZZ_FORMAT "vdi"
#include "fuzz_image.h"
