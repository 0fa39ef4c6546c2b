"""What every room needs of files: outputs that appear whole, locks, JSON, tables of rows, names as disks spell them."""
