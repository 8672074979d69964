// Seventy rules of the kinds that rule sets in the field are made of, for measurements. They describe no real malware:
// words and bytes are made up. With the rules of `config/rules` they are what "a small set" means in our figures.

import "pe"
import "math"
import "hash"

rule executable_strings_00 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 49
    strings:
        $s0 = "C:\\Pefa\\Sarele.pdb" fullword
        $s1 = "NtThread" ascii wide
        $s2 = "Galosota"
        $s3 = "Lasobita" wide
    condition:
        uint16(0) == 0x5a4d and filesize < 1814KB and 2 of them
}

rule executable_strings_01 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 76
    strings:
        $s0 = "Zilitage" fullword
        $s1 = "Pacicaza"
        $s2 = "Sibu.do.exe" wide
        $s3 = "C:\\Fihe\\Lesofi.pdb" ascii wide
        $s4 = "GetUrl"
        $s5 = "Moco.ki.exe" wide
        $s6 = "C:\\Loha\\Rafigi.pdb"
    condition:
        uint16(0) == 0x5a4d and filesize < 2257KB and 2 of them
}

rule executable_strings_02 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 46
    strings:
        $s0 = "Vosa.re.exe"
        $s1 = "Vadavisa"
        $s2 = "Minesima" wide
        $s3 = "ReadKeyA"
        $s4 = "Save.ra.dat" ascii wide
    condition:
        uint16(0) == 0x5a4d and filesize < 2844KB and 2 of them
}

rule executable_strings_03 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 53
    strings:
        $s0 = "GetSection"
        $s1 = "Nasa.ri.exe" nocase
        $s2 = "C:\\Tasa\\Ganofe.pdb" nocase
        $s3 = "Haladela" ascii wide
        $s4 = "OpenAllocEx" ascii wide
        $s5 = "InternetSectionA" nocase
    condition:
        uint16(0) == 0x5a4d and filesize < 2280KB and 2 of them
}

rule executable_strings_04 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 52
    strings:
        $s0 = "Zinasiso" ascii wide
        $s1 = "InternetSectionA" ascii wide
        $s2 = "RegFileW" wide
        $s3 = "GetHandleEx2" wide
        $s4 = "Pavikero" wide
    condition:
        uint16(0) == 0x5a4d and filesize < 2116KB and 2 of them
}

rule executable_strings_05 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 45
    strings:
        $s0 = "C:\\Hiva\\Lerame.pdb" wide
        $s1 = "WriteMemoryEx" wide
        $s2 = "InternetModuleW"
        $s3 = "C:\\Gisa\\Docate.pdb" fullword
        $s4 = "Raba.sa.dll" fullword
        $s5 = "Getenobi" wide
        $s6 = "InternetAllocEx2" wide
        $s7 = "Niti.re.exe"
    condition:
        uint16(0) == 0x5a4d and filesize < 2292KB and 2 of them
}

rule executable_strings_06 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 43
    strings:
        $s0 = "C:\\Mipe\\Caloli.pdb"
        $s1 = "C:\\Kivo\\Coripe.pdb" ascii wide
        $s2 = "C:\\Resi\\Dameti.pdb"
        $s3 = "OpenUrlEx" fullword
        $s4 = "GetUrl" ascii wide
        $s5 = "Heni.za.exe"
    condition:
        uint16(0) == 0x5a4d and filesize < 2432KB and 2 of them
}

rule executable_strings_07 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 65
    strings:
        $s0 = "RegAllocA" nocase
        $s1 = "C:\\Sasa\\Sibudi.pdb" fullword
        $s2 = "ReadThreadA" nocase
        $s3 = "Mida.ze.dll" ascii wide
        $s4 = "OpenUrl"
        $s5 = "CryptSectionW" nocase
        $s6 = "NtAllocA"
        $s7 = "Riti.se.dll" ascii wide
    condition:
        uint16(0) == 0x5a4d and filesize < 467KB and 2 of them
}

rule executable_strings_08 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 92
    strings:
        $s0 = "Sopobabo" nocase
        $s1 = "Baroposa" fullword
        $s2 = "CryptMemoryW" fullword
        $s3 = "Kenatoco" ascii wide
        $s4 = "NtHandleW"
        $s5 = "Togarane"
        $s6 = "Kara.vi.exe" ascii wide
        $s7 = "C:\\Pive\\Bidaha.pdb" wide
    condition:
        uint16(0) == 0x5a4d and filesize < 1572KB and 3 of them
}

rule executable_strings_09 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 31
    strings:
        $s0 = "C:\\Mege\\Pesivo.pdb" fullword
        $s1 = "InternetMemoryEx2" nocase
        $s2 = "GetAllocA" ascii wide
        $s3 = "C:\\Sove\\Zekele.pdb" ascii wide
    condition:
        uint16(0) == 0x5a4d and filesize < 2623KB and 3 of them
}

rule executable_strings_10 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 58
    strings:
        $s0 = "RegHandle" nocase
        $s1 = "C:\\Mibu\\Gisopi.pdb" ascii wide
        $s2 = "Bozi.fa.dat" wide
        $s3 = "Fasizoce" wide
        $s4 = "Ricorazi" wide
        $s5 = "C:\\Meco\\Ribobe.pdb" nocase
    condition:
        uint16(0) == 0x5a4d and filesize < 565KB and 2 of them
}

rule executable_strings_11 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 61
    strings:
        $s0 = "Cila.ha.exe" fullword
        $s1 = "C:\\Mani\\Livobi.pdb" nocase
        $s2 = "Tivi.ra.dat" fullword
        $s3 = "Reke.me.exe" wide
        $s4 = "Dahe.ro.exe" wide
        $s5 = "Deni.zi.dat" fullword
        $s6 = "C:\\Bige\\Lofife.pdb"
    condition:
        uint16(0) == 0x5a4d and filesize < 1943KB and 3 of them
}

rule executable_strings_12 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 47
    strings:
        $s0 = "InternetSectionEx2" fullword
        $s1 = "Cikeroca" fullword
        $s2 = "Nibetate" nocase
        $s3 = "Gazohese" nocase
        $s4 = "Lama.ce.dll"
        $s5 = "VirtualModuleEx2"
        $s6 = "Posa.re.exe" wide
    condition:
        uint16(0) == 0x5a4d and filesize < 2145KB and 2 of them
}

rule executable_strings_13 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 52
    strings:
        $s0 = "Doze.so.dat" fullword
        $s1 = "ReadModuleEx2" nocase
        $s2 = "Hepitova" ascii wide
        $s3 = "Ceze.re.dll" fullword
        $s4 = "C:\\Lida\\Zapabo.pdb" wide
        $s5 = "Dahebepo"
        $s6 = "Remodisa" ascii wide
    condition:
        uint16(0) == 0x5a4d and filesize < 1680KB and 3 of them
}

rule executable_strings_14 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 32
    strings:
        $s0 = "C:\\Lise\\Catero.pdb" nocase
        $s1 = "ReadModuleEx" fullword
        $s2 = "Bacezike" wide
        $s3 = "C:\\Soka\\Sipeve.pdb" wide
        $s4 = "RegMemoryEx" nocase
    condition:
        uint16(0) == 0x5a4d and filesize < 2191KB and 2 of them
}

rule executable_strings_15 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 74
    strings:
        $s0 = "Timohama" nocase
        $s1 = "WriteMemoryEx2" wide
        $s2 = "Kepi.lo.dll" nocase
        $s3 = "Deti.ro.dat"
        $s4 = "NtMemory" wide
    condition:
        uint16(0) == 0x5a4d and filesize < 947KB and 3 of them
}

rule executable_strings_16 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 75
    strings:
        $s0 = "CryptMemory" nocase
        $s1 = "Pezo.ne.dll" fullword
        $s2 = "OpenThreadA" fullword
        $s3 = "WriteModuleEx" fullword
    condition:
        uint16(0) == 0x5a4d and filesize < 2217KB and 3 of them
}

rule executable_strings_17 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 31
    strings:
        $s0 = "Varedofe" wide
        $s1 = "Mosapeta" nocase
        $s2 = "C:\\Boda\\Hisabo.pdb" nocase
        $s3 = "Melo.so.dat" wide
        $s4 = "InternetAllocEx2" nocase
    condition:
        uint16(0) == 0x5a4d and filesize < 1988KB and 2 of them
}

rule executable_strings_18 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 85
    strings:
        $s0 = "Cobotire" fullword
        $s1 = "Sano.ma.dat" nocase
        $s2 = "CryptProcess" fullword
        $s3 = "Bolifimi"
        $s4 = "Cami.so.exe"
    condition:
        uint16(0) == 0x5a4d and filesize < 2888KB and 2 of them
}

rule executable_strings_19 : executable
{
    meta:
        description = "Measured kind: executable strings"
        score = 87
    strings:
        $s0 = "ReadMemoryA" nocase
        $s1 = "NtModule"
        $s2 = "Lesemeli" nocase
        $s3 = "Bokipiha" wide
        $s4 = "Pove.vo.dat" nocase
        $s5 = "OpenThreadW" nocase
        $s6 = "Sasa.za.dll"
        $s7 = "C:\\Sape\\Mavisa.pdb" fullword
    condition:
        uint16(0) == 0x5a4d and filesize < 3230KB and 2 of them
}

rule script_words_20 : script
{
    meta:
        description = "Measured kind: script words"
        score = 51
    strings:
        $a0 = ".rasa(" nocase ascii wide
        $a1 = "$rana=[" nocase ascii wide
        $a2 = "cahivo.pati" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_21 : script
{
    meta:
        description = "Measured kind: script words"
        score = 49
    strings:
        $a0 = "-sohe " nocase ascii wide
        $a1 = "-bozi " nocase ascii wide
        $a2 = "-gebi " nocase ascii wide
        $a3 = "vofabo.buza" nocase ascii wide
        $a4 = "mizoka.mige" nocase ascii wide
        $a5 = ".sana(" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_22 : script
{
    meta:
        description = "Measured kind: script words"
        score = 85
    strings:
        $a0 = "tehibe.hesa" nocase ascii wide
        $a1 = "-galo " nocase ascii wide
        $a2 = "-vate " nocase ascii wide
        $a3 = "-viso " nocase ascii wide
        $a4 = ".vaba(" nocase ascii wide
        $a5 = "-bide " nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_23 : script
{
    meta:
        description = "Measured kind: script words"
        score = 86
    strings:
        $a0 = "paneca.kepi" nocase ascii wide
        $a1 = "saboni.saro" nocase ascii wide
        $a2 = "-taze " nocase ascii wide
        $a3 = "zodite.pali" nocase ascii wide
        $a4 = "$kazo=[" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_24 : script
{
    meta:
        description = "Measured kind: script words"
        score = 66
    strings:
        $a0 = ".veva(" nocase ascii wide
        $a1 = ".sika(" nocase ascii wide
        $a2 = "$cezi=[" nocase ascii wide
        $a3 = "-moha " nocase ascii wide
        $a4 = ".zelo(" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_25 : script
{
    meta:
        description = "Measured kind: script words"
        score = 85
    strings:
        $a0 = "fezibe.vace" nocase ascii wide
        $a1 = "rameci.pori" nocase ascii wide
        $a2 = "hesodi.zaka" nocase ascii wide
        $a3 = ".modi(" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_26 : script
{
    meta:
        description = "Measured kind: script words"
        score = 41
    strings:
        $a0 = "$nore=[" nocase ascii wide
        $a1 = ".raki(" nocase ascii wide
        $a2 = ".popo(" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_27 : script
{
    meta:
        description = "Measured kind: script words"
        score = 38
    strings:
        $a0 = ".gica(" nocase ascii wide
        $a1 = "$laso=[" nocase ascii wide
        $a2 = "finavi.hici" nocase ascii wide
        $a3 = "$cava=[" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_28 : script
{
    meta:
        description = "Measured kind: script words"
        score = 43
    strings:
        $a0 = ".povo(" nocase ascii wide
        $a1 = "$bipi=[" nocase ascii wide
        $a2 = ".divo(" nocase ascii wide
        $a3 = "$rivi=[" nocase ascii wide
        $a4 = ".geli(" nocase ascii wide
        $a5 = "fedoga.nani" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_29 : script
{
    meta:
        description = "Measured kind: script words"
        score = 41
    strings:
        $a0 = "tibafa.zosi" nocase ascii wide
        $a1 = "$gice=[" nocase ascii wide
        $a2 = "-reso " nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_30 : script
{
    meta:
        description = "Measured kind: script words"
        score = 45
    strings:
        $a0 = "$didi=[" nocase ascii wide
        $a1 = "tomeca.busi" nocase ascii wide
        $a2 = "pacibi.mana" nocase ascii wide
        $a3 = "-pipo " nocase ascii wide
        $a4 = "mekade.zaco" nocase ascii wide
        $a5 = "-misi " nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_31 : script
{
    meta:
        description = "Measured kind: script words"
        score = 72
    strings:
        $a0 = "-tili " nocase ascii wide
        $a1 = ".tati(" nocase ascii wide
        $a2 = ".meni(" nocase ascii wide
        $a3 = ".mico(" nocase ascii wide
        $a4 = "$dema=[" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_32 : script
{
    meta:
        description = "Measured kind: script words"
        score = 55
    strings:
        $a0 = "-dosi " nocase ascii wide
        $a1 = "zoceme.vehe" nocase ascii wide
        $a2 = ".rebu(" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_33 : script
{
    meta:
        description = "Measured kind: script words"
        score = 45
    strings:
        $a0 = "$raba=[" nocase ascii wide
        $a1 = "-zaro " nocase ascii wide
        $a2 = "-faga " nocase ascii wide
        $a3 = "-hevo " nocase ascii wide
        $a4 = ".bizi(" nocase ascii wide
        $a5 = ".budi(" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule script_words_34 : script
{
    meta:
        description = "Measured kind: script words"
        score = 34
    strings:
        $a0 = "-vaso " nocase ascii wide
        $a1 = "-feso " nocase ascii wide
        $a2 = "$zize=[" nocase ascii wide
        $a3 = "-lopi " nocase ascii wide
        $a4 = "birivi.leca" nocase ascii wide
        $a5 = ".kadi(" nocase ascii wide
    condition:
        filesize < 1MB and 2 of them
}

rule code_bytes_35
{
    meta:
        description = "Measured kind: code bytes"
        score = 75
    strings:
        $h0 = { 15 2A F9 ?? 7E 76 D7 40 [2-6] DE [2-6] CF FE 49 16 ?? 3C C6 }
    condition:
        uint16(0) == 0x5a4d and any of them
}

rule code_bytes_36
{
    meta:
        description = "Measured kind: code bytes"
        score = 49
    strings:
        $h0 = { 26 5D 58 0A 39 B4 ?? 9E 8F 5B 1E 07 49 B8 }
        $h1 = { 88 61 AD 39 27 EE D3 51 ?? B1 30 E6 D0 50 BD CD 4B }
        $h2 = { 60 DB A3 1F ?? ?? A9 21 80 44 E2 8F ?? 2C 58 BA A8 54 8B }
    condition:
        uint16(0) == 0x5a4d and any of them
}

rule code_bytes_37
{
    meta:
        description = "Measured kind: code bytes"
        score = 41
    strings:
        $h0 = { 77 D6 9C 96 1F 55 F5 33 15 A6 ?? 44 D4 }
        $h1 = { 73 BA 97 ?? 55 0E F9 59 42 FC 90 2A 4D BB }
    condition:
        uint16(0) == 0x5a4d and any of them
}

rule code_bytes_38
{
    meta:
        description = "Measured kind: code bytes"
        score = 32
    strings:
        $h0 = { 90 F6 E2 ?? 1B 61 C0 95 ?? 3F ?? AC CF 87 B8 6E }
    condition:
        all of them
}

rule code_bytes_39
{
    meta:
        description = "Measured kind: code bytes"
        score = 46
    strings:
        $h0 = { 0F 00 7B 8B ?? 00 D3 D0 [2-6] 71 DC 1B FE 20 5E 4B D7 }
        $h1 = { 55 CB A1 5B 93 B4 F6 44 64 41 BB C2 52 A1 66 D8 AA }
        $h2 = { F6 30 74 C9 E4 9C 25 ?? [2-6] 89 99 ?? 23 83 }
    condition:
        uint16(0) == 0x5a4d and any of them
}

rule code_bytes_40
{
    meta:
        description = "Measured kind: code bytes"
        score = 57
    strings:
        $h0 = { D3 DE CC D7 1B 72 ?? 8E 8E 36 95 25 5D BB 6F 96 90 C7 3A E4 8D 5F D7 }
        $h1 = { A0 F2 27 21 DB E9 F8 ?? AA 9D 67 83 FC C3 C2 1A AD }
        $h2 = { 95 1A BE FE 4F 92 F0 63 [2-6] 2F ?? AE ?? ?? C0 C6 80 83 ?? 57 5E }
    condition:
        any of them
}

rule code_bytes_41
{
    meta:
        description = "Measured kind: code bytes"
        score = 55
    strings:
        $h0 = { 83 40 63 78 ?? F6 6B D9 92 E7 24 E8 34 D6 21 78 ?? 93 33 8D 15 }
        $h1 = { 22 AE 93 77 3C 6C FA D0 ?? ?? BB E2 B5 EA A9 33 }
    condition:
        any of them
}

rule code_bytes_42
{
    meta:
        description = "Measured kind: code bytes"
        score = 46
    strings:
        $h0 = { D9 11 BB 6A 77 85 FF 72 0B 63 36 FE E4 2D CD 64 ?? 1C 23 6F }
        $h1 = { 8B 08 FC 2E ?? 5F [2-6] ?? [2-6] 86 22 9A F6 D7 }
        $h2 = { C9 01 7D 4C B3 [2-6] ?? 9E 2F B0 9F A4 C5 FA F8 [2-6] CA 50 2B 7C 08 56 }
    condition:
        any of them
}

rule code_bytes_43
{
    meta:
        description = "Measured kind: code bytes"
        score = 40
    strings:
        $h0 = { 02 D6 5C CD BA 27 62 DA ?? CE E4 5F 60 93 CE ?? 03 43 00 }
        $h1 = { D7 F1 85 FB 91 A9 54 26 34 61 3F A6 0B 42 33 F3 7F F1 A1 }
        $h2 = { BE 95 BF ?? C5 51 A6 B4 96 0D }
    condition:
        any of them
}

rule code_bytes_44
{
    meta:
        description = "Measured kind: code bytes"
        score = 36
    strings:
        $h0 = { 93 ED 56 A5 40 4E EC 1A ?? 5C 7D C1 D7 }
    condition:
        uint16(0) == 0x5a4d and any of them
}

rule code_bytes_45
{
    meta:
        description = "Measured kind: code bytes"
        score = 54
    strings:
        $h0 = { 42 C4 75 08 ?? D2 C4 [2-6] 49 9D 57 D7 [2-6] ?? C4 [2-6] ?? [2-6] 8E A3 B6 EA }
    condition:
        uint16(0) == 0x5a4d and any of them
}

rule code_bytes_46
{
    meta:
        description = "Measured kind: code bytes"
        score = 37
    strings:
        $h0 = { 64 53 DB AC C6 ?? 63 E7 14 AE }
        $h1 = { 31 70 0E 5C 8F 42 ?? C4 6E F9 ?? 34 1B 7B 36 05 AE }
    condition:
        all of them
}

rule patterns_47
{
    meta:
        description = "Measured kind: patterns"
        score = 64
    strings:
        $r0 = /veri[a-z0-9_]{2,16}\.zeta\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/fabi\.php\?[a-z]{1,4}=/
        $t = "Gisisake"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_48
{
    meta:
        description = "Measured kind: patterns"
        score = 56
    strings:
        $r0 = /tica[a-z0-9_]{2,16}\.coni\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/haga\.php\?[a-z]{1,4}=/
        $t = "Gebavido"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_49
{
    meta:
        description = "Measured kind: patterns"
        score = 32
    strings:
        $r0 = /niga[a-z0-9_]{2,16}\.sabi\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/dari\.php\?[a-z]{1,4}=/
        $t = "Zadibagi"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_50
{
    meta:
        description = "Measured kind: patterns"
        score = 43
    strings:
        $r0 = /rava[a-z0-9_]{2,16}\.bova\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/hefa\.php\?[a-z]{1,4}=/
        $t = "Labotale"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_51
{
    meta:
        description = "Measured kind: patterns"
        score = 33
    strings:
        $r0 = /fedi[a-z0-9_]{2,16}\.toba\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/rovo\.php\?[a-z]{1,4}=/
        $t = "Lotamavo"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_52
{
    meta:
        description = "Measured kind: patterns"
        score = 56
    strings:
        $r0 = /lito[a-z0-9_]{2,16}\.gebe\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/nazo\.php\?[a-z]{1,4}=/
        $t = "Tofecibi"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_53
{
    meta:
        description = "Measured kind: patterns"
        score = 82
    strings:
        $r0 = /buno[a-z0-9_]{2,16}\.boza\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/lano\.php\?[a-z]{1,4}=/
        $t = "Henisara"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_54
{
    meta:
        description = "Measured kind: patterns"
        score = 48
    strings:
        $r0 = /moka[a-z0-9_]{2,16}\.feca\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/vopi\.php\?[a-z]{1,4}=/
        $t = "Sitobasi"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_55
{
    meta:
        description = "Measured kind: patterns"
        score = 46
    strings:
        $r0 = /fimo[a-z0-9_]{2,16}\.popi\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/kito\.php\?[a-z]{1,4}=/
        $t = "Benitiha"
    condition:
        filesize < 5MB and 2 of them
}

rule patterns_56
{
    meta:
        description = "Measured kind: patterns"
        score = 35
    strings:
        $r0 = /veze[a-z0-9_]{2,16}\.sofa\(/ nocase
        $r1 = /https?:\/\/[a-z0-9.\-]{4,40}\/kebe\.php\?[a-z]{1,4}=/
        $t = "Gacaciva"
    condition:
        filesize < 5MB and 2 of them
}

rule executable_facts_57
{
    meta:
        description = "Measured kind: executable facts"
        score = 40
    strings:
        $s = "Fesibaso" wide
    condition:
        uint16(0) == 0x5a4d and pe.number_of_sections > 3 and (pe.imports("nezito.dll", "OpenUrl") or $s)
}

rule executable_facts_58
{
    meta:
        description = "Measured kind: executable facts"
        score = 59
    strings:
        $s = "Seseveri" wide
    condition:
        uint16(0) == 0x5a4d and pe.number_of_sections > 6 and (pe.imports("vofila.dll", "VirtualThreadEx") or $s)
}

rule executable_facts_59
{
    meta:
        description = "Measured kind: executable facts"
        score = 80
    strings:
        $s = "Kazanebe" wide
    condition:
        uint16(0) == 0x5a4d and pe.number_of_sections > 5 and (pe.imports("bukiha.dll", "CreateKeyEx") or $s)
}

rule executable_facts_60
{
    meta:
        description = "Measured kind: executable facts"
        score = 61
    strings:
        $s = "Ladetafe" wide
    condition:
        uint16(0) == 0x5a4d and pe.number_of_sections > 3 and (pe.imports("zobuhe.dll", "CryptAlloc") or $s)
}

rule executable_facts_61
{
    meta:
        description = "Measured kind: executable facts"
        score = 59
    strings:
        $s = "Bunigiva" wide
    condition:
        uint16(0) == 0x5a4d and pe.number_of_sections > 3 and (pe.imports("dedobi.dll", "CryptProcessEx2") or $s)
}

rule entropy_of_overlay_62
{
    meta:
        description = "Measured kind: entropy of overlay"
        score = 90
    strings:
        $s = "Vemazireda"
    condition:
        uint16(0) == 0x5a4d and filesize > 2KB and $s and math.entropy(0, 1024) > 6.4
}

rule entropy_of_overlay_63
{
    meta:
        description = "Measured kind: entropy of overlay"
        score = 69
    strings:
        $s = "Nenozomilo"
    condition:
        uint16(0) == 0x5a4d and filesize > 2KB and $s and math.entropy(0, 1024) > 6.4
}

rule entropy_of_overlay_64
{
    meta:
        description = "Measured kind: entropy of overlay"
        score = 83
    strings:
        $s = "Dakisaside"
    condition:
        uint16(0) == 0x5a4d and filesize > 2KB and $s and math.entropy(0, 1024) > 6.5
}

rule known_part_65
{
    meta:
        description = "Measured kind: known part"
        score = 91
    strings:
        $s = "Cihividovi"
    condition:
        $s and hash.md5(0, 64) == "5d0ffa3c9c9e745d9153d58737abf0d8"
}

rule known_part_66
{
    meta:
        description = "Measured kind: known part"
        score = 77
    strings:
        $s = "Tikisareha"
    condition:
        $s and hash.md5(0, 64) == "f92f5e81c708f5baed46c0c3a6452e14"
}

rule known_part_67
{
    meta:
        description = "Measured kind: known part"
        score = 91
    strings:
        $s = "Bunezelalo"
    condition:
        $s and hash.md5(0, 64) == "9d723bfd4e173eb85906adf0a0626e20"
}

rule encoded_command_68
{
    meta:
        description = "Measured kind: encoded command"
        score = 54
    strings:
        $x = "DineroGatovi" xor
        $b = "Revabozoca" base64
    condition:
        any of them
}

rule many_words_69
{
    meta:
        description = "Measured kind: many words"
        score = 90
    strings:
        $w0 = "Mapecivi"
        $w1 = "Depoteda"
        $w2 = "Darazite"
        $w3 = "Lodakine"
        $w4 = "Hepasota"
        $w5 = "Tenibohi"
        $w6 = "Verocema"
        $w7 = "Cozacica"
        $w8 = "Detopodi"
        $w9 = "Dodasomi"
        $w10 = "Rafamofi"
        $w11 = "Tefibume"
        $w12 = "Nozamozo"
        $w13 = "Talidebi"
        $w14 = "Sozalahi"
        $w15 = "Renipito"
        $w16 = "Tesodahi"
        $w17 = "Negipava"
        $w18 = "Tabikine"
        $w19 = "Nokatasa"
        $w20 = "Zotavizo"
        $w21 = "Lecipebo"
        $w22 = "Mazatado"
        $w23 = "Nigehafe"
        $w24 = "Gefagape"
        $w25 = "Pevidote"
        $w26 = "Comohaba"
        $w27 = "Zomotaze"
        $w28 = "Vorigilo"
        $w29 = "Seripeci"
    condition:
        8 of them
}
