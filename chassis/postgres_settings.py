"""How the embedded PostgreSQL is set, and what its refusals mean in plain words.

Decides: every setting that differs from PostgreSQL's own, each with its reason; the sentence for each known refusal.
Leaves: passing them on to `postgres`. A server of the operator's own (`MILLRACE_DATABASE_URL`) is set by its operator.
"""

SETTINGS = {
    # Durable: what the promises rest on (I1, I3).
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Nobody outside this machine, nobody outside this user.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # Small at rest: no helpers that wait for work which embedded mode never has.
    "max_connections": "60",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "huge_pages": "off",
    "io_method": "sync",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "max_wal_senders": "2",
    "autovacuum_max_workers": "2",
    "autovacuum_naptime": "20s",
    # Short statements: compiling them costs more than running them.
    "jit": "off",
    # Fewer checkpoints: each makes every page write its full image to the log again.
    "checkpoint_timeout": "10min",
    "max_wal_size": "768MB",
    "min_wal_size": "96MB",
    "wal_buffers": "8MB",
    # Many partitions (runs, journals) in one statement.
    "max_locks_per_transaction": "256",
    # A client that died while it waited for a lock lets go of the others.
    "client_connection_check_interval": "1s",
    "tcp_keepalives_idle": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "lc_messages": "C",
}

SENTENCES = (
    ("No space left on device", "The disk of {folder} is full. Free some space and start again; nothing is lost."),
    ("Disk quota exceeded", "The disk quota of {folder} is used up. Free some space and start again; nothing is lost."),
    ("Read-only file system", "The file system of {folder} is read-only. Mount it writable and start again."),
    ("Permission denied", "PostgreSQL may not read or write {folder}. Give it back to the user that runs Millrace."),
    ("could not create shared memory", "There is no shared memory left for PostgreSQL (/dev/shm). Give it 128 MiB."),
    ("could not resize shared memory", "There is no shared memory left for PostgreSQL (/dev/shm). Give it 128 MiB."),
)
