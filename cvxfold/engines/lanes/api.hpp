// What a module exports: plain C symbols, the same ones in every module.
#pragma once

#if defined(_WIN32)
#define CVXFOLD_API extern "C" __declspec(dllexport)
#else
#define CVXFOLD_API extern "C" __attribute__((visibility("default")))
#endif

/// Instances that a pack holds in this module.
CVXFOLD_API int cvxfold_width();

/// The highest x86-64 level (2, 3 or 4) that this CPU and its operating system support; 0 below 2 and
/// elsewhere.
CVXFOLD_API int cvxfold_level();

/// A digest of the sources that this module was made of.
CVXFOLD_API const char *cvxfold_sources();
