-- pg_dumpall of a database that the last release has made: its roles, its schema, a user with an item and a conversation.
SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
CREATE ROLE sightline;
ALTER ROLE sightline WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS PASSWORD 'changed by make up';
CREATE ROLE sightline_exporter;
ALTER ROLE sightline_exporter WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5 PASSWORD 'changed by make up';
ALTER ROLE sightline_exporter SET default_transaction_read_only TO 'on';
ALTER ROLE sightline_exporter SET statement_timeout TO '10s';
ALTER ROLE sightline_exporter SET lock_timeout TO '1s';
ALTER ROLE sightline_exporter SET "pg_stat_statements.track" TO 'none';
GRANT pg_monitor TO sightline_exporter GRANTED BY postgres;
\connect postgres
SET statement_timeout = 0;
SET lock_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET client_min_messages = warning;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET client_min_messages = warning;
CREATE DATABASE sightline WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C';
ALTER DATABASE sightline OWNER TO sightline;
\connect sightline
SET statement_timeout = 0;
SET lock_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH SCHEMA public;
COMMENT ON EXTENSION pg_stat_statements IS 'track planning and execution statistics of all SQL statements executed';
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
ALTER TABLE public.alembic_version OWNER TO sightline;
CREATE TABLE public.conversations (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    title text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE public.conversations OWNER TO sightline;
ALTER TABLE public.conversations ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.conversations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.items (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE public.items OWNER TO sightline;
ALTER TABLE public.items ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.items_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.messages (
    id bigint NOT NULL,
    conversation_id bigint NOT NULL,
    role text NOT NULL,
    content text NOT NULL,
    complete boolean DEFAULT true NOT NULL,
    model text,
    provider text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_messages_role CHECK ((role = ANY (ARRAY['user'::text, 'assistant'::text])))
);
ALTER TABLE public.messages OWNER TO sightline;
ALTER TABLE public.messages ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.messages_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.users (
    id bigint NOT NULL,
    name text NOT NULL,
    api_key_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE public.users OWNER TO sightline;
ALTER TABLE public.users ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
COPY public.alembic_version (version_num) FROM stdin;
0001
\.
COPY public.conversations (id, user_id, title, created_at) FROM stdin;
1	1	Hello	2026-11-29 00:16:24.609277+00
\.
COPY public.items (id, user_id, title, description, created_at, updated_at) FROM stdin;
1	1	Milk		2026-11-29 00:16:24.511821+00	2026-11-29 00:16:24.511821+00
\.
COPY public.messages (id, conversation_id, role, content, complete, model, provider, created_at) FROM stdin;
1	1	user	Hello	t	\N	\N	2026-11-29 00:16:24.609277+00
2	1	assistant	This is a simulated answer.	t	simulated-small	simulated	2026-11-29 00:16:25.940015+00
\.
COPY public.users (id, name, api_key_hash, created_at) FROM stdin;
1	Ada	\\x35a099fd00f3ff66bb25d741e11eb0a5af9220d2923458df3310a15af743e2d1	2026-11-29 00:16:24.42635+00
\.
SELECT pg_catalog.setval('public.conversations_id_seq', 1, true);
SELECT pg_catalog.setval('public.items_id_seq', 1, true);
SELECT pg_catalog.setval('public.messages_id_seq', 2, true);
SELECT pg_catalog.setval('public.users_id_seq', 1, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.items
    ADD CONSTRAINT items_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_api_key_hash_key UNIQUE (api_key_hash);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
CREATE INDEX ix_conversations_user_id_id ON public.conversations USING btree (user_id, id);
CREATE INDEX ix_items_user_id_id ON public.items USING btree (user_id, id);
CREATE INDEX ix_messages_conversation_id_id ON public.messages USING btree (conversation_id, id);
ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.items
    ADD CONSTRAINT items_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(id) ON DELETE CASCADE;
REVOKE CONNECT,TEMPORARY ON DATABASE sightline FROM PUBLIC;
GRANT CONNECT ON DATABASE sightline TO sightline_exporter;
