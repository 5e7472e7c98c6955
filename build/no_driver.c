/* Stands in for NVIDIA's driver library where there is none: MXNet's CUDA build cannot even be imported without a libcuda.so.1.
 *
 * Every function that MXNet asks the driver for answers CUDA_ERROR_NO_DEVICE. build/no_driver.py loads it, and only where the
 * real library, which the NVIDIA container toolkit puts into a container that was given a GPU, is not there. */
#define ANSWERS_NO_DEVICE(name) int name(void) { return 100; }

ANSWERS_NO_DEVICE(cuDeviceGet)
ANSWERS_NO_DEVICE(cuDevicePrimaryCtxRetain)
ANSWERS_NO_DEVICE(cuGetErrorString)
ANSWERS_NO_DEVICE(cuGraphKernelNodeGetParams)
ANSWERS_NO_DEVICE(cuGraphNodeGetType)
ANSWERS_NO_DEVICE(cuInit)
ANSWERS_NO_DEVICE(cuLaunchKernel)
ANSWERS_NO_DEVICE(cuModuleGetFunction)
ANSWERS_NO_DEVICE(cuModuleLoadData)
ANSWERS_NO_DEVICE(cuModuleLoadDataEx)
ANSWERS_NO_DEVICE(cuModuleUnload)
