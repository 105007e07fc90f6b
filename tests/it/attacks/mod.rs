//! Attacks and mistakes that once harmed a node: a file for each finding, named for the behaviour that the
//! file defends.

mod data_directory_is_private;
mod http_rejects_foreign_pages_and_idle_connections;
mod idle_clients_do_not_block_elections;
mod inflating_input_is_bounded;
mod io_errors_are_not_damage;
mod log_entries_are_bounded;
mod memory_is_bounded_per_address;
mod missing_files_stop_startup;
mod module_labels_keep_their_digest;
mod producer_ids_belong_to_their_account;
mod readable_records_survive_metadata_damage;
mod restored_copies_rejoin_as_new_nodes;
mod signals_and_closed_pipes_end_cleanly;
mod unreadable_rows_stop_startup;
mod uploads_block_no_other_call;
