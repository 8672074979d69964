// General rules to begin with: what a payload is, and what it should not hold. Your own go into files of their own, which
// `worker_rules` names, one by one or as a folder.

rule eicar_test_file : test
{
    meta:
        description = "The EICAR anti-virus test file, at the start or inside of something"
        reference = "https://www.eicar.org/download-anti-malware-testfile/"
    strings:
        $eicar = /X5O!P%@AP\[4\\PZX54\(P\^\)7CC\)7\}\$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!\$H\+H\*/
    condition:
        $eicar
}

rule pe_executable : executable
{
    meta:
        description = "A Windows executable, library or driver"
    condition:
        uint16(0) == 0x5a4d and uint32(uint32(0x3c)) == 0x00004550
}

rule elf_executable : executable
{
    meta:
        description = "An ELF executable or library"
    condition:
        uint32be(0) == 0x7f454c46 and (uint16(16) == 2 or uint16(16) == 3 or uint16be(16) == 2 or uint16be(16) == 3)
}

private rule document_container
{
    condition:
        uint32be(0) == 0x25504446 or                                    // PDF
        uint32be(0) == 0xd0cf11e0 or                                    // OLE
        uint32be(0) == 0x7b5c7274 or                                    // RTF
        uint32be(0) == 0xe4525c7b or                                    // OneNote
        (uint32be(0) == 0x4c000000 and uint32be(4) == 0x01140200)       // shortcut
}

rule pe_in_document : embedded
{
    meta:
        description = "A Windows executable inside of a document"
    strings:
        $dos = "This program cannot be run in DOS mode"
        $win32 = "This program must be run under Win"
    condition:
        document_container and any of them
}

rule pe_encoded : embedded encoded
{
    meta:
        description = "A Windows executable in base64, hexadecimal digits, reversed, or XORed with one byte"
    strings:
        $base64 = "This program cannot be run in DOS mode" base64 base64wide
        $hex = "4d5a90000300000004000000ffff" nocase ascii wide
        $reversed = "edom SOD ni nur eb tonnac margorp sihT"
        $xor = "This program cannot be run in DOS mode" xor(0x01-0xff)
    condition:
        any of them
}

rule upx_packed : packer
{
    meta:
        description = "Packed with UPX"
    strings:
        $mark = "UPX!"
        $first = "UPX0"
        $second = "UPX1"
        $text = "$Info: This file is packed with the UPX executable packer"
    condition:
        (uint16(0) == 0x5a4d and $mark and ($first in (0..2048)) and ($second in (0..2048))) or
        (uint32be(0) == 0x7f454c46 and $mark and $text)
}

rule macro_runs_by_itself : macro
{
    meta:
        description = "A macro that runs when its document is opened, and starts programs or downloads"
    strings:
        $open1 = "AutoOpen" nocase fullword ascii wide
        $open2 = "Auto_Open" nocase fullword ascii wide
        $open3 = "AutoExec" nocase fullword ascii wide
        $open4 = "Document_Open" nocase fullword ascii wide
        $open5 = "Workbook_Open" nocase fullword ascii wide
        $does1 = "WScript.Shell" nocase ascii wide
        $does2 = "Shell.Application" nocase ascii wide
        $does3 = "URLDownloadToFile" nocase ascii wide
        $does4 = "MSXML2.XMLHTTP" nocase ascii wide
        $does5 = "ADODB.Stream" nocase ascii wide
        $does6 = "powershell" nocase ascii wide
        $does7 = "CreateObject" nocase fullword ascii wide
        $does8 = "VirtualAlloc" fullword ascii wide
        $does9 = "ShellExecute" nocase ascii wide
    condition:
        any of ($open*) and 2 of ($does*)
}

rule powershell_downloads_and_runs : script
{
    meta:
        description = "PowerShell that fetches something and runs it, or hides what it does"
    strings:
        $get1 = "Net.WebClient" nocase ascii wide
        $get2 = ".DownloadString(" nocase ascii wide
        $get3 = ".DownloadFile(" nocase ascii wide
        $get4 = "Invoke-WebRequest" nocase ascii wide
        $get5 = "FromBase64String(" nocase ascii wide
        $run1 = "Invoke-Expression" nocase ascii wide
        $run2 = /\biex\b ?[\(\$\|&]/ nocase
        $run3 = "Start-Process" nocase ascii wide
        $run4 = "[Reflection.Assembly]::Load" nocase ascii wide
        $hide1 = /powershell(\.exe)?["']? [^\r\n]{0,200}-e(nc|ncodedcommand)? +[A-Za-z0-9+\/]{40}/ nocase
        $hide2 = /-w(indowstyle)? +hidden/ nocase
    condition:
        $hide1 or (any of ($get*) and (any of ($run*) or $hide2))
}

rule pdf_acts_when_opened : document
{
    meta:
        description = "A PDF that runs JavaScript, starts a program or opens an embedded file by itself"
    strings:
        $when1 = /\/OpenAction\b/
        $when2 = /\/AA\b/
        $what1 = /\/JavaScript\b/
        $what2 = /\/JS\b/
        $what3 = /\/Launch\b/
        $what4 = /\/EmbeddedFile\b/
    condition:
        uint32be(0) == 0x25504446 and any of ($when*) and any of ($what*)
}

rule rtf_with_object : document
{
    meta:
        description = "An RTF document with embedded objects that are updated when it is opened"
    strings:
        $data = "\\objdata" nocase
        $update = "\\objupdate" nocase
        $equation = "4571756174696f6e2e33" nocase
    condition:
        uint32be(0) == 0x7b5c7274 and $data and ($update or $equation)
}

rule shortcut_runs_interpreter : shortcut
{
    meta:
        description = "A Windows shortcut that starts a script interpreter"
    strings:
        $1 = "powershell" nocase ascii wide
        $2 = "cmd.exe" nocase ascii wide
        $3 = "mshta" nocase ascii wide
        $4 = "wscript" nocase ascii wide
        $5 = "rundll32" nocase ascii wide
    condition:
        uint32be(0) == 0x4c000000 and uint32be(4) == 0x01140200 and any of them
}

rule html_smuggling : script
{
    meta:
        description = "A page that puts a file together and hands it over as a download"
    strings:
        $page = "<script" nocase
        $blob = "new Blob(" nocase
        $url = "createObjectURL(" nocase
        $save = "msSaveOrOpenBlob" nocase
        $attribute = ".download" nocase
        $decode = "atob(" nocase
    condition:
        $page and $decode and $blob and ($save or ($url and $attribute))
}

rule php_runs_its_input : webshell
{
    meta:
        description = "PHP that evaluates what a request or an encoded text says"
    strings:
        $php = "<?php" nocase
        $run1 = /\b(eval|assert|system|passthru|shell_exec|exec)\s{0,8}\(\s{0,8}(base64_decode|gzinflate|gzuncompress|str_rot13)\s{0,8}\(/ nocase
        $run2 = /\b(eval|assert|system|passthru|shell_exec|exec)\s{0,8}\(\s{0,8}\$_(GET|POST|REQUEST|COOKIE)\b/ nocase
    condition:
        $php and any of ($run*)
}
