// The one translation unit of the kernels, compiled once for each instruction set.
#include "api.hpp"
