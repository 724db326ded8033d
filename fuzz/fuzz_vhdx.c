/* Fuzzes the vhdx format: see fuzz_image.h. */
#define FUZZ_FORMAT "vhdx"
#include "fuzz_image.h"
