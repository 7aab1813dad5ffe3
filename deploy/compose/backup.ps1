# Runs a backup from Windows:  .\backup.ps1 -Type full
param([ValidateSet('full', 'diff', 'incr')][string]$Type = 'incr')
docker exec pgbackrest "/scripts/backup_$Type.sh"
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
docker exec pgbackrest pgbackrest info
exit $LASTEXITCODE
