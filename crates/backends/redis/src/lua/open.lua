-- ARGV: scan, now, description of the scan.
return find(ARGV[2], 3)
