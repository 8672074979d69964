//! Configuration, units, secrets, logs, shutdown and metrics shared by all roles.
