// The inner loops of products, half of the compiler's work, beside engine.cpp in a file of their own.
#include "products.h"

template void tile<1>(const Matrix&, const Acts&, int, int, int, float[][8]);
template void tile<2>(const Matrix&, const Acts&, int, int, int, float[][8]);
template void tile<3>(const Matrix&, const Acts&, int, int, int, float[][8]);
template void tile<4>(const Matrix&, const Acts&, int, int, int, float[][8]);
