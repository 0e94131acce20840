# Reads what Serf's RPC answers to handshake, auth and one more command: the bytes as decimal numbers. Prints the answer.
# Its lines are not sorted: awk would need /bin/sh for that. Exit code 111 if there is no answer, or a refusal.
function byte() {
    if (at >= count) {
        if ((getline line) <= 0) fail("Serf does not answer")
        count = split(line, bytes, " ")
        at = 0
    }
    return bytes[++at] + 0
}
function number(size,    sum) {
    for (sum = 0; size > 0; size--) sum = sum * 256 + byte()
    return sum
}
# A text from the network as it may be shown: printable ASCII, no blanks.
function text(size,    all, code) {
    if (size > 1048576) fail("Serf sent too much")
    for (all = ""; size > 0; size--) {
        code = byte()
        all = all (code == 92 ? "\\\\" : code > 32 && code < 127 ? sprintf("%c", code) : sprintf("\\x%02x", code))
    }
    return all
}
# Raw bytes: an address.
function raw(size,    all, group, part) {
    if (size != 4 && size != 16) return text(size)
    for (all = ""; size > 0; size--) { part[size] = byte(); group++ }
    if (group == 16) {
        for (size = 16; size > 6 && part[size] == 0;) size--
        if (size == 6 && part[6] == 255 && part[5] == 255) group = 4
    }
    if (group == 4) return part[4] "." part[3] "." part[2] "." part[1]
    for (size = 16; size > 0; size -= 2) all = all (size < 16 ? ":" : "") sprintf("%x", part[size] * 256 + part[size - 1])
    return short(all)
}
# An IPv6 address in its normal form: the longest run of zeros, two or more groups, the first of equal ones, is left out.
function short(address,    parts, size, start, best, where, i, left, right) {
    split(address, parts, ":")
    for (i = 1; i <= 8; i++) {
        if (parts[i] != "0") { size = 0; continue }
        if (size++ == 0) start = i
        if (size > best) { best = size; where = start }
    }
    if (best < 2) return address
    for (i = 1; i < where; i++) left = left (i > 1 ? ":" : "") parts[i]
    for (i = where + best; i <= 8; i++) right = right (i > where + best ? ":" : "") parts[i]
    return left "::" right
}
# Reads a value and keeps each plain one in `found`, by its path.
function value(path, depth,    kind, size, i, key) {
    kind = byte()
    if (depth > 16) fail("Serf sent a value that is too deep")
    if (kind < 128) found[path] = kind
    else if (kind >= 224) found[path] = kind - 256
    else if (kind == 192) found[path] = ""
    else if (kind == 194 || kind == 195) found[path] = kind - 194
    else if (kind >= 160 && kind < 192) found[path] = text(kind - 160)
    else if (kind >= 196 && kind <= 198) found[path] = raw(number(sizes[kind - 196]))
    else if (kind >= 202 && kind <= 211) found[path] = number(kind < 204 ? 4 * (kind - 201) : sizes[(kind - 204) % 4])
    else if (kind >= 217 && kind <= 219) found[path] = text(number(sizes[kind - 217]))
    else if (kind >= 144 && kind < 160 || kind == 220 || kind == 221) {
        size = kind < 160 ? kind - 144 : number(kind == 220 ? 2 : 4)
        for (i = 0; i < size; i++) value(path "/" i, depth + 1)
        found[path] = size
    } else if (kind < 144 || kind == 222 || kind == 223) {
        size = kind < 144 ? kind - 128 : number(kind == 222 ? 2 : 4)
        for (i = 0; i < size; i++) {
            value("key", depth + 1)
            key = found["key"]
            keys[path, i] = key
            value(path "/" key, depth + 1)
        }
        found[path] = size
    } else fail("Serf sent invalid MessagePack")
}
function header(what) {
    value("", 0)
    if (found["/Error"] == "") return
    gsub(/\\x20/, " ", found["/Error"])
    gsub(/\\x0a|\\x09/, " ", found["/Error"])
    gsub(/  +/, " ", found["/Error"])
    fail(what ": " found["/Error"])
}
function fail(why) {
    print "ask: " why > "/dev/stderr"
    has_failed = 1
    exit 111
}
# The pairs of a map, sorted by key, each as KEY=VALUE, with a separator between them.
function pairs(path, separator,    i, j, size, sorted, key, all) {
    size = found[path]
    for (i = 0; i < size; i++) {
        key = keys[path, i]
        for (j = i; j > 0 && sorted[j - 1] > key; j--) sorted[j] = sorted[j - 1]
        sorted[j] = key
    }
    for (i = 0; i < size; i++) all = all (i ? separator : "") sorted[i] "=" found[path "/" sorted[i]]
    return all
}
BEGIN {
    for (i = 0; i < 4; i++) sizes[i] = i ? 2 * sizes[i - 1] : 1 # bytes of lengths and numbers, by the end of their kind
    header("handshake")
    if (has_key) header("auth")
    header(name)
    if (name == "tags") print "the tags are changed"
    else if (name == "leave") print "left the cluster"
    else if (name == "force-leave") print "forced " words " to leave"
    else {
        value("", 0)
        if (name == "join") print "joined " found["/Num"] " nodes"
        else if (name == "members") {
            for (i = 0; i < found["/Members"]; i++) {
                member = "/Members/" i
                if (status != "" && found[member "/Status"] != status) continue
                address = found[member "/Addr"]
                if (address ~ /:/) address = "[" address "]"
                print found[member "/Name"] "  " address ":" found[member "/Port"] "  " found[member "/Status"] "  " \
                    pairs(member "/Tags", ",")
            }
        } else if (name == "keys") {
            for (i = 0; i < found["/Keys"]; i++) print "on " found["/Keys/" keys["/Keys", i]] " of " found["/NumNodes"] " nodes"
        } else {
            for (i = 0; i < found[""]; i++) {
                part = keys["", i]
                for (j = 0; j < found["/" part]; j++) print part "." keys["/" part, j] "=" found["/" part "/" keys["/" part, j]]
            }
        }
    }
}
END { if (has_failed) exit 111 }
