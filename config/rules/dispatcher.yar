// Rules that choose workers. `plugin` names them, separated by commas; `save = "false"` keeps archivers away from the
// payload. They run in one pass with the worker's rules.

rule archive_to_decompress
{
    meta:
        description = "Archives and compressed files that can be opened"
        plugin = "decompress"
        save = "true"
    condition:
        // ZIP: local header, empty archive, spanned archive
        uint32be(0) == 0x504b0304 or uint32be(0) == 0x504b0506 or uint32be(0) == 0x504b0708 or
        // gzip, bzip2, xz, zstd, 7z
        uint16be(0) == 0x1f8b or
        (uint16be(0) == 0x425a and uint8(2) == 0x68 and uint32be(4) == 0x31415926) or
        (uint32be(0) == 0xfd377a58 and uint16be(4) == 0x5a00) or
        uint32be(0) == 0x28b52ffd or
        (uint32be(0) == 0x377abcaf and uint16be(4) == 0x271c) or
        // RAR from 1.5 on, and before; cabinet; ar
        (uint32be(0) == 0x52617221 and uint16be(4) == 0x1a07) or uint32be(0) == 0x52457e5e or
        (uint32be(0) == 0x4d534346 and uint32be(4) == 0) or
        (uint32be(0) == 0x213c6172 and uint32be(4) == 0x63683e0a) or
        // LHA: a method such as -lh5- behind two bytes
        (uint8(2) == 0x2d and (uint16be(3) == 0x6c68 or uint16be(3) == 0x6c7a) and uint8(6) == 0x2d) or
        // LZMA without a container: its usual properties, and a size that is unknown or below a terabyte
        (uint8(0) == 0x5d and uint16(1) == 0 and ((uint32(5) == 0xffffffff and uint32(9) == 0xffffffff) or uint32(9) < 0x100)) or
        // tar, by the mark in its first header
        (uint32be(257) == 0x75737461 and uint8(261) == 0x72)
}

rule executable_to_pecarve
{
    meta:
        description = "Windows executables, by their mark and the sentence that their DOS stub prints"
        plugin = "pecarve"
        save = "true"
    strings:
        // "MZ" or "ZM", then "This program cannot", "This program must" or "This program requires"
        $image = { (4D 5A | 5A 4D) [2-510] 54 68 69 73 20 70 72 6F 67 72 61 6D 20
            (63 61 6E 6E 6F 74 | 6D 75 73 74 | 72 65 71 75 69 72 65 73) 20 }
    condition:
        // Members of a tar lie in it as they are: they are looked at when decompress has taken them out.
        $image and (filesize < 262 or uint32be(257) != 0x75737461)
}

rule mail_to_smtp
{
    meta:
        description = "Mails: a block of header fields with a date and a sender"
        plugin = "smtp"
        save = "true"
    strings:
        $from = /(^|\n)From:/ nocase
        $date = /(^|\n)Date:/ nocase
        $crlf = "\r\n\r\n"
        $lf = "\n\n"
    condition:
        $from and $date and (
            (not $crlf and not $lf) or
            ($crlf and (not $lf or @crlf[1] < @lf[1]) and $from in (0..@crlf[1]) and $date in (0..@crlf[1])) or
            ($lf and (not $crlf or @lf[1] < @crlf[1]) and $from in (0..@lf[1]) and $date in (0..@lf[1]))
        )
}
