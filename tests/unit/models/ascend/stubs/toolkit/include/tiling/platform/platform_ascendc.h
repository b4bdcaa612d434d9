#pragma once
#include <cstdint>

namespace platform_ascendc {
enum class CoreMemType { L0_A, L0_B, L0_C, L1, L2, UB, HBM };
class PlatformAscendC {
public:
    explicit PlatformAscendC(void *info);
    uint32_t GetCoreNumAic() const;
    uint32_t GetLibApiWorkSpaceSize() const;
    void GetCoreMemSize(const CoreMemType &type, uint64_t &size) const;
};
} // namespace platform_ascendc
