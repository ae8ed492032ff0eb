"""A new row by an INSERT that is built once per table: Django builds one anew each time, which takes longer than it."""

from __future__ import annotations

from functools import lru_cache

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import AutoField, Field, Model


def insert(row: Model) -> None:
    """Like `save(force_insert=True)` of a model without signals or parents; a key that the database counts is set."""
    sql, fields, counted = _statement(type(row))
    database = connections[DEFAULT_DB_ALIAS]  # looked up once: `connection` looks at each use
    values = [field.get_db_prep_save(field.pre_save(row, add=True), database) for field in fields]
    with database.cursor() as cursor:
        cursor.execute(sql, values)
        if counted:
            row.pk = cursor.fetchone()[0]
    row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS


@lru_cache
def _statement(model: type[Model]) -> tuple[str, list[Field], bool]:
    """The statement, the fields of its values, and whether the row's key comes back."""
    meta = model._meta
    counted = isinstance(meta.pk, AutoField)
    fields = [field for field in meta.concrete_fields if not (counted and field.primary_key)]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    sql = f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({places})"  # noqa: S608  names of ours alone
    return sql + (f" RETURNING {quote(str(meta.pk.column))}" if counted else ""), fields, counted
