// Lists of integers out of the JSON text in which ATC hands over an ONNX node's attributes:
// {"attribute": [{"ints": [1, 1, 1, 1], "name": "pads", "type": 7}, ...]}, keys in any order, numbers perhaps quoted.
#ifndef TESSERA_JSON_INTS_H
#define TESSERA_JSON_INTS_H

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace tessera {
// Position behind `"key" :` in text, or npos.
inline size_t BehindKey(const std::string &text, const std::string &key) {
    const size_t at = text.find("\"" + key + "\"");
    const size_t colon = at == std::string::npos ? at : text.find(':', at);
    return colon == std::string::npos ? colon : text.find_first_not_of(" \t\n", colon + 1);
}

// False where there is no such attribute, or it is no list of integers.
inline bool ReadInts(const std::string &text, const std::string &name, std::vector<int64_t> &values) {
    for (size_t open = text.find('{'); open != std::string::npos; open = text.find('{', open + 1)) {
        const size_t close = text.find_first_of("{}", open + 1);
        if (close == std::string::npos || text[close] == '{')
            continue; // not an innermost object
        const std::string object = text.substr(open, close - open);
        const size_t named = BehindKey(object, "name"), listed = BehindKey(object, "ints");
        if (named == std::string::npos || object.compare(named, name.size() + 2, "\"" + name + "\"") != 0)
            continue;
        if (listed == std::string::npos || object[listed] != '[')
            return false;
        const size_t end = object.find(']', listed);
        values.clear();
        for (size_t at = listed + 1; at < end && end != std::string::npos;) {
            at = object.find_first_of("-0123456789", at);
            if (at >= end)
                break;
            char *behind = nullptr;
            values.push_back(std::strtoll(object.c_str() + at, &behind, 10));
            at = static_cast<size_t>(behind - object.c_str());
        }
        return end != std::string::npos;
    }
    return false;
}
} // namespace tessera
#endif
