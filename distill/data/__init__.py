"""From a cell on disk to a small code: the public schema, table files, columns, grids and bins.

What is known of a column comes from its public schema alone, never from the rows.

    schema          what a table may hold          schema_draft    a first schema, to be edited
    sources         CSV and Parquet files          tables          a whole table, checked
    columns         one column to codes            encoded_table   all rows as codes
    grids           base cells of a column         bins            cells joined into bins
    demo            made-up tables
"""

__all__: list[str] = []
